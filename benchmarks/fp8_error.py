"""Error of attention on fp8 inputs, by the way they were quantised, beside that on bf16 inputs.

``python -m benchmarks.fp8_error [--quick] [--write]`` prints the table; ``--write`` puts it into ``docs/fp8.md``.
Inputs are those of FlashAttention-3's section 4.3 (arXiv 2407.08608), ``N(0, 1) + N(0, 100) * Bernoulli(0.001)``,
and plain ``N(0, 1)``. The error is that against float64 attention of the inputs before any rounding. The backend
upcasts fp8 exactly and does not round probabilities to fp8, so that what is measured is the quantisation of the
inputs and the rounding of the output to bf16.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from flash_attn.diagnostics.text_table import markdown_table
from flash_attn.dispatch import use_backend
from flash_attn.flash_attn_3_interface import flash_attn_func
from flash_attn.quantization import (
    dequantize_blockwise,
    incoherent_processing,
    quantize_blockwise,
    quantize_per_head,
    quantize_per_tensor,
)

PAGE = Path(__file__).resolve().parents[1] / "docs" / "fp8.md"
BLOCK_SIZE = 128
COLUMNS = ["inputs", "RMSE, outliers", "of bf16", "largest", "RMSE, normal", "of bf16", "largest"]
Inputs = tuple[Tensor, Tensor, Tensor]


def attention(q: Tensor, k: Tensor, v: Tensor, descales: tuple[Tensor | None, ...] = (None, None, None)) -> Tensor:
    """Output of one call."""
    q_descale, k_descale, v_descale = descales
    out = flash_attn_func(q, k, v, q_descale=q_descale, k_descale=k_descale, v_descale=v_descale)
    assert isinstance(out, Tensor)
    return out


def bf16(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of the inputs rounded to bf16."""
    return attention(q.to(torch.bfloat16), k.to(torch.bfloat16), v.to(torch.bfloat16))


def scaled(quantize: Callable[..., tuple[Tensor, Tensor]], dtype: torch.dtype) -> Callable[..., Tensor]:
    """Attention of fp8 inputs with the scales that ``quantize`` gives."""

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        (q8, q_descale), (k8, k_descale), (v8, v_descale) = (quantize(x, k.shape[2], dtype) for x in (q, k, v))
        return attention(q8, k8, v8, (q_descale, k_descale, v_descale))

    return call


def blockwise(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of inputs that went through fp8 with a scale for every 128 tokens; fp32 afterwards, then bf16."""
    q32, k32, v32 = (dequantize_blockwise(*quantize_blockwise(x, BLOCK_SIZE), BLOCK_SIZE) for x in (q, k, v))
    return attention(q32, k32, v32).to(torch.bfloat16)


def incoherent(attend: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same after the random Hadamard transform of q and k."""

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(*incoherent_processing(q, k, torch.Generator().manual_seed(1)), v)

    return call


_E4M3, _FNUZ, _E5M2 = torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2
VARIANTS: dict[str, Callable[..., Tensor]] = {
    "bf16": bf16,
    "e4m3fn, one scale a tensor": scaled(quantize_per_tensor, _E4M3),
    "e4m3fnuz, one scale a tensor": scaled(quantize_per_tensor, _FNUZ),
    "e5m2, one scale a tensor": scaled(quantize_per_tensor, _E5M2),
    "e4m3fn, one scale a head": scaled(quantize_per_head, _E4M3),
    "e4m3fn, one scale a block": blockwise,
    "e4m3fn, one scale a tensor, Hadamard": incoherent(scaled(quantize_per_tensor, _E4M3)),
    "e4m3fn, one scale a head, Hadamard": incoherent(scaled(quantize_per_head, _E4M3)),
    "e4m3fn, one scale a block, Hadamard": incoherent(blockwise),
}


def inputs(seqlen: int, outliers: bool) -> Inputs:
    """q, k and v in float64, ``(2, seqlen, 8, 128)``, reproducible."""
    generator = torch.Generator().manual_seed(0)
    shape = (3, 2, seqlen, 8, 128)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    if outliers:
        hit = torch.rand(shape, generator=generator) < 0.001
        x = x + 10 * torch.randn(shape, generator=generator, dtype=torch.float64) * hit
    q, k, v = x.unbind(0)
    return q, k, v


def errors(seqlen: int, outliers: bool) -> dict[str, tuple[float, float]]:
    """Root mean square and largest error of every variant."""
    q, k, v = inputs(seqlen, outliers)
    found = {}
    with use_backend("cpu"), torch.no_grad():
        exact = attention(q, k, v)
        for name, attend in VARIANTS.items():
            error = attend(q, k, v).double() - exact
            found[name] = (float(error.square().mean().sqrt()), float(error.abs().max()))
    return found


def table(seqlen: int) -> str:
    """Markdown table of all variants."""
    by_input = [errors(seqlen, outliers) for outliers in (True, False)]
    rows = []
    for name in VARIANTS:
        row = [name]
        for found in by_input:
            rmse, largest = found[name]
            row += [f"{rmse:.1e}", f"{rmse / found['bf16'][0]:.1f}", f"{largest:.1e}"]
        rows.append(row)
    return markdown_table(COLUMNS, rows)


def table_in(page: str) -> str:
    """What ``page`` has between its markers."""
    return page.partition("<!-- error-table:begin -->\n")[2].partition("\n<!-- error-table:end -->")[0]


def with_table(page: str, text: str) -> str:
    """``page`` with ``text`` between its markers."""
    return page.replace(table_in(page), text)


def main() -> None:
    """Print the table, and write it where that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="128 tokens in place of 1024")
    parser.add_argument("--write", action="store_true", help="put the table into docs/fp8.md")
    options = parser.parse_args()
    text = table(128 if options.quick else 1024)
    print(text)
    if options.write:
        PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")


if __name__ == "__main__":
    main()
