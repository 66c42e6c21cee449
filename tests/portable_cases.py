"""Cases for the kernels of csrc_common in a simulator: ``python portable_cases.py ARCH LIBRARY CASE...`` runs them.

A result is compared with float64 element by element; what is printed is the largest error in units of the bound.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from flash_attn import dispatch
from flash_attn.backends import kv_append, native_append, native_library, native_split
from flash_attn.backends.base import DecodeInputs
from flash_attn.backends.native import NativeBackend
from flash_attn.backends.native_library import NativeLibrary
from flash_attn.testing import decode_copy
from flash_attn.testing_cases import DecodeCase, make_decode

F16, BF16, F64 = torch.float16, torch.bfloat16, torch.float64
U = 2.0**-24  # half a unit in the last place of 1 in float32
Worst = dict[str, tuple[float, float]]


def worst(result: Tensor, exact: Tensor, allowed: Tensor) -> tuple[float, float]:
    """Largest error in units of what is allowed, and 1; infinite for a NaN, and where nothing is allowed."""
    result, exact = result.double(), exact.double()
    error = (result - exact).abs().masked_fill(result == exact, 0.0)
    share = torch.where(error == 0, 0.0, error / allowed).nan_to_num(nan=torch.inf)
    return float(share.max()) if share.numel() else 0.0, 1.0


def rounding(exact: Tensor, dtype: torch.dtype) -> Tensor:
    """Half a unit in the last place of ``dtype``."""
    limits = torch.finfo(dtype)
    return limits.eps / 2 * exact.double().abs().clamp(min=limits.tiny)


@dataclass(frozen=True)
class Combine:
    """Merge of splits; a third of them saw no key, and what they left as output is NaN."""

    splits: int
    head_dim: int
    dtype: torch.dtype
    batch: int = 2
    seqlen_q: int = 3
    nheads: int = 5
    varlen: bool = False

    def run(self, library: NativeLibrary) -> Worst:
        """Weights are exponentials of rounded differences of log-sum-exps, twice, and sums have a term a split."""
        generator = torch.Generator().manual_seed(self.splits)
        rows = (self.splits, self.batch, self.nheads, self.seqlen_q)
        lse = 4 * torch.randn(rows, generator=generator) + 30
        unseen = torch.rand(rows, generator=generator) < 1 / 3
        unseen[:, 0, 0] = True
        lse.masked_fill_(unseen, -torch.inf)
        parts = torch.randn(
            self.splits, self.batch, self.seqlen_q, self.nheads, self.head_dim, generator=generator
        ).masked_fill_(unseen.transpose(-1, -2).unsqueeze(-1), torch.nan)
        if self.varlen:
            parts, lse, unseen = parts[:, 0].contiguous(), lse[:, 0].contiguous(), unseen[:, 0]
        merged = native_split.merge(library, parts, lse, self.dtype)

        total = lse.double().logsumexp(0)
        weights = torch.exp(lse.double() - total.nan_to_num(neginf=0.0)).transpose(-1, -2).unsqueeze(-1)
        terms = weights * parts.double().nan_to_num()
        exact, magnitude = terms.sum(0), terms.abs().sum(0)
        seen = lse[~unseen]
        spread = float(seen.max() - seen.min()) if seen.numel() else 0.0
        weight_error = (2 * spread + 8 + self.splits) * 2 * U
        finite = total.nan_to_num(neginf=0.0).abs()
        return {
            "out": worst(merged.out, exact, 2 * weight_error * magnitude + rounding(exact, self.dtype)),
            "lse": worst(merged.softmax_lse, total, weight_error + 4 * U * (finite + 1)),
        }


@dataclass(frozen=True)
class Append:
    """The step of a KV cache; ``change`` makes of validated inputs what the case is about."""

    case: DecodeCase
    change: Callable[[DecodeInputs], DecodeInputs] = lambda inputs: inputs

    def run(self, library: NativeLibrary) -> Worst:
        """A rotation is two products and their sum, rounded once; everything else is copied."""
        spec, inputs = make_decode(self.case)
        inputs = self.change(inputs)
        assert native_append.kernel_writes(inputs)
        expected, right = kv_append.append_and_rotate(spec, decode_copy(inputs, F64))
        attended, given = native_append.append_and_rotate(library, spec, inputs)
        assert attended == expected
        assert given.seqused_k is not None
        assert right.seqused_k is not None
        exactly = torch.zeros(())
        return {
            "q": worst(given.q, right.q, self._allowed(inputs.q, right.q)),
            "k_cache": worst(given.k, right.k, self._allowed(inputs.k_new, right.k)),
            "v_cache": worst(given.v, right.v, exactly),
            "seqused_k": worst(given.seqused_k, right.seqused_k, exactly),
        }

    def _allowed(self, x: Tensor | None, exact: Tensor) -> Tensor:
        assert x is not None
        largest = 2 * float(x.abs().max()) if x.numel() else 0.0
        allowed = 3 * U * largest + rounding(exact, self.case.dtype)
        allowed[..., self.case.rotary_dim :] = 0.0
        return allowed


@dataclass(frozen=True)
class SoftmaxD:
    """Row sums of dout * out of ``shape``, (batch, seqlen_q, nheads, head_dim) or (total_q, nheads, head_dim)."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    dlse: bool = True
    dropout_p: float = 0.0

    def run(self, library: NativeLibrary) -> Worst:
        """A sum of as many products as there are channels. ``dout`` is a slice of a wider tensor."""
        generator = torch.Generator().manual_seed(len(self.shape))
        out = torch.randn(self.shape, generator=generator).to(self.dtype)
        wider = torch.randn(*self.shape[:-2], self.shape[-2] + 2, self.shape[-1] + 8, generator=generator)
        dout = wider.to(self.dtype)[..., 1:-1, : self.shape[-1]]
        exact = (dout.double() * out.double()).sum(-1).transpose(-1, -2)
        size = (dout.double() * out.double()).abs().sum(-1).transpose(-1, -2)
        dlse = torch.randn(exact.shape, generator=generator) if self.dlse else None
        if dlse is not None:
            exact, size = exact - dlse.double(), size + dlse.double().abs()
        softmax_d = torch.full(exact.shape, torch.nan)
        scaled_d = torch.full(exact.shape, torch.nan) if self.dropout_p > 0 else None
        tensors = (out, dout, dlse, softmax_d, scaled_d)
        with library.launching(tensors):
            library.operators.softmax_d(*tensors, 1 - self.dropout_p)
        allowed = (self.shape[-1] + 2) * U * size
        found = {"softmax_d": worst(softmax_d, exact, allowed)}
        if scaled_d is not None:
            found["scaled_d"] = worst(scaled_d, (1 - self.dropout_p) * exact, allowed)
        return found


@dataclass(frozen=True)
class Sum:
    """Sums of ``shape``, (outer, terms, inner), in the dtype of the result or in float32."""

    shape: tuple[int, int, int]
    dtype: torch.dtype
    float_terms: bool

    def run(self, library: NativeLibrary) -> Worst:
        """Sums in float32, rounded once more."""
        generator = torch.Generator().manual_seed(sum(self.shape))
        parts = torch.randn(self.shape, generator=generator).to(torch.float32 if self.float_terms else self.dtype)
        sums = torch.full((self.shape[0], self.shape[2]), torch.nan, dtype=self.dtype)
        with library.launching((parts, sums)):
            library.operators.sum(parts, sums)
        exact, size = parts.double().sum(1), parts.double().abs().sum(1)
        return {"sums": worst(sums, exact, self.shape[1] * U * size + rounding(exact, self.dtype))}


@dataclass(frozen=True)
class Refused:
    """Calls that must name what is wrong."""

    def run(self, library: NativeLibrary) -> Worst:
        """0 where the message has the words, else infinite."""
        operators = library.operators
        parts, lse, out = torch.zeros(2, 1, 1, 2, 16), torch.zeros(2, 1, 2, 1), torch.zeros(1, 1, 2, 16, dtype=BF16)
        cache, new = torch.zeros(2, 8, 1, 16, dtype=BF16), torch.zeros(2, 1, 1, 16, dtype=BF16)
        ints, table = torch.zeros(2, dtype=torch.int32), torch.zeros(8, 12, dtype=BF16)
        more: tuple[Tensor | None, ...] = (None,) * 9
        calls: dict[str, Callable[[], None]] = {
            "out is neither float16 nor bfloat16": lambda: operators.combine(parts, lse, out.float(), lse[0]),
            "lse_parts has shape (1, 2, 1)": lambda: operators.combine(parts, lse[0], out, lse[0]),
            "out_parts has head dim 12": lambda: operators.combine(
                parts[..., :12].contiguous(), lse, out[..., :12].contiguous(), lse[0]
            ),
            "v_new does not have the dtype of k_cache": lambda: operators.append(
                cache, cache, new, new.half(), ints, ints, *more, False, False
            ),
            "k_cache has 2 rows for a batch of 1": lambda: operators.append(
                cache, cache, new[:1], new[:1], ints[:1], ints[:1], *more, False, False
            ),
            "cache_seqlens has the wrong dtype": lambda: operators.append(
                cache, cache, new, new, ints.long(), ints, *more, False, False
            ),
            "rotary_dim is 24; accepted are 2 to head_dim 16": lambda: operators.append(
                cache, cache, new, new, ints, ints, None, None, None, table, table, None, new, new, None, False, False
            ),
            "come together": lambda: operators.append(
                cache, cache, new, new, ints, ints, None, None, None, table, None, None, None, None, None, False, False
            ),
            "dout has shape (2, 16)": lambda: operators.softmax_d(out, out[0, 0], None, lse[0], None, 1.0),
            "softmax_d is not contiguous float32": lambda: operators.softmax_d(
                out, out, None, lse[0].double(), None, 1.0
            ),
            "inner a multiple of 8": lambda: operators.sum(torch.zeros(1, 2, 12), torch.zeros(1, 12, dtype=BF16)),
            "parts is neither float32": lambda: operators.sum(torch.zeros(1, 2, 8).half(), new[0, 0, :, :8]),
        }
        return {words: (0.0 if words in _refusal(call) else float("inf"), 1.0) for words, call in calls.items()}


def _refusal(call: Callable[[], None]) -> str:
    try:
        call()
    except RuntimeError as error:
        return str(error)
    return ""


def _full_caches(inputs: DecodeInputs) -> DecodeInputs:
    """No room for any, for one, and for all of the new tokens."""
    return inputs._replace(cache_seqlens=torch.tensor([inputs.capacity, inputs.capacity - 1, 3], dtype=torch.int32))


def _missing_page(inputs: DecodeInputs) -> DecodeInputs:
    """The pages that two sequences go on to are none of the cache's."""
    assert inputs.block_table is not None
    inputs.block_table[0, 1], inputs.block_table[1, 2] = -1, inputs.k_cache.shape[0]
    return inputs


def _same_row(inputs: DecodeInputs) -> DecodeInputs:
    """All sequences append to one row of the cache, at places of their own."""
    assert inputs.cache_batch_idx is not None
    return inputs._replace(cache_batch_idx=torch.ones_like(inputs.cache_batch_idx))


def _strided(inputs: DecodeInputs) -> DecodeInputs:
    """Slices of wider tensors: q, new keys and values of one projection, both tables of one, caches of two."""

    def widened(x: Tensor | None, dim: int, start: int) -> Tensor:
        assert x is not None
        shape = list(x.shape)
        shape[dim] += 8
        return x.new_full(shape, torch.nan).narrow(dim, start, x.shape[dim]).copy_(x)

    return inputs._replace(
        q=widened(inputs.q, -2, 4), k_new=widened(inputs.k_new, -2, 1), v_new=widened(inputs.v_new, 1, 2),
        rotary_cos=widened(inputs.rotary_cos, 1, 0), rotary_sin=widened(inputs.rotary_sin, 1, 3),
        k_cache=widened(inputs.k_cache, -2, 3), v_cache=widened(inputs.v_cache, 1, 0),
    )  # fmt: skip


_TOKENS = DecodeCase((17, 40, 3), 2, 2, head_dim=64, head_dim_v=64, dtype=BF16, rotary_dim=64)
_PAGED = replace(_TOKENS, page_size=16, cache_seqlens=(15, 31, 0), rotary_interleaved=False)
CASES: dict[str, Combine | Append | SoftmaxD | Sum | Refused] = {
    "combine one": Combine(1, 64, BF16),
    "combine three, head_dim 40": Combine(3, 40, F16),
    "combine eight, head_dim 256": Combine(8, 256, BF16),
    "combine 33, head_dim 72": Combine(33, 72, F16),
    "combine 100, head_dim 8": Combine(100, 8, BF16, batch=1, seqlen_q=70),
    "combine 32, head_dim 128": Combine(32, 128, BF16, seqlen_q=1, nheads=32),
    "combine five, head_dim 512": Combine(5, 512, F16),
    "combine four, varlen": Combine(4, 64, BF16, seqlen_q=37, varlen=True),
    "append without rotary": Append(replace(_TOKENS, rotary_dim=0, head_dim_v=24)),
    "append, interleaved": Append(_TOKENS),
    "append, float16 without a mask": Append(replace(_TOKENS, dtype=F16, causal=False)),
    "append, part interleaved": Append(replace(_TOKENS, rotary_dim=20, head_dim=72)),
    "append, halves": Append(replace(_TOKENS, rotary_interleaved=False, leftpad=True)),
    "append, halves of a part": Append(replace(_TOKENS, rotary_interleaved=False, rotary_dim=48)),
    "append, halves of 10": Append(replace(_TOKENS, rotary_interleaved=False, rotary_dim=20, dtype=F16)),
    "append, cache_batch_idx": Append(replace(_TOKENS, batch_idx=True)),
    "append, one cache row": Append(replace(_TOKENS, batch_idx=True), _same_row),
    "append across pages": Append(_PAGED),
    "append, pages of one": Append(replace(_PAGED, page_size=1)),
    "append, pages of 3": Append(replace(_PAGED, page_size=3, seqlen_new=7)),
    "append, pages that are missing": Append(_PAGED, _missing_page),
    "append to full caches": Append(replace(_TOKENS, seqlen_new=4), _full_caches),
    "append to full pages": Append(replace(_PAGED, seqlen_new=4), _full_caches),
    "append ragged": Append(replace(_TOKENS, seqlens_q=(1, 0, 5), seqlens_new=(0, 3, 1), rotary_offset=9)),
    "append ragged to pages": Append(replace(_PAGED, seqlens_q=(4, 1, 0), seqlens_new=(2, 0, 17))),
    "append, strided": Append(replace(_TOKENS, rotary_interleaved=False), _strided),
    "softmax_d": SoftmaxD((2, 5, 3, 64), BF16),
    "softmax_d dropout, head_dim 40": SoftmaxD((2, 5, 3, 40), F16, dropout_p=0.25),
    "softmax_d varlen, head_dim 8": SoftmaxD((37, 3, 8), BF16),
    "softmax_d varlen, head_dim 512": SoftmaxD((3, 2, 512), F16, dlse=False),
    "sum of splits": Sum((1, 5, 3 * 40 * 8), BF16, float_terms=True),
    "sum of one": Sum((1, 1, 264), F16, float_terms=True),
    "sum of groups": Sum((14, 4, 72), BF16, float_terms=False),
    "sum of groups, float16": Sum((300, 3, 8), F16, float_terms=False),
    "refused": Refused(),
}


def main(arguments: list[str]) -> None:
    """Run cases by name and print a JSON object: for each case its results, with error and allowed error."""
    arch, path, *names = arguments
    os.environ["FLASH_ATTENTION_SIMULATE"] = arch
    # what torch.empty returns is NaN then: a result that no kernel writes shows
    torch.use_deterministic_algorithms(True, warn_only=True)
    native = dispatch.backend("ck" if arch.startswith("gfx") else "cuda")
    assert isinstance(native, NativeBackend)
    library = replace(native.library, path=Path(path))
    assert not native_library.loading_reasons(library)
    print(json.dumps({name: CASES[name].run(library) for name in names}))


if __name__ == "__main__":
    main(sys.argv[1:])
