"""Decoding and fp8 attention on a GPU: bandwidth beside a measured copy, PyTorch's best way, own bf16, in one run.

``python -m benchmarks.gpu_inference [--backend NAME] [--json PATH] [--dry]``

Decoding is one query of 32 heads over 32,768 keys of 8 heads, head dim 128, bf16, contiguous, in pages and in fp8.
Every contender is captured in a graph and replayed; all take turns, a round each, and figures are medians over rounds.
The bandwidth is that of reading keys and values once; the copy beside it moves as many bytes, half of them read and
half written. PyTorch's ways are its fused kernels with grouped heads, and the same with the query heads of a KV head
as rows, in which no key is read twice; the fastest of them is the peer. Fp8 is a forward beside the same one in bf16.
A contender whose result differs by more than rounding explains stops the run: a wrong kernel has no speed. ``--dry``
runs the whole script on CPU tensors with tiny shapes, without graphs; its times mean nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

import flash_attn
from benchmarks.gpu_attention import Contender, measure, require_agreement
from benchmarks.timing import Progress
from flash_attn import flash_attn_3_interface as v3
from flash_attn.architectures import find
from flash_attn.backends.gpu import architecture_name
from flash_attn.diagnostics.text_table import terminal_table
from flash_attn.quantization import quantize_per_head

# Share of the copy's bandwidth that decoding aims at, by batch size; how much faster fp8 should be than bf16.
_BANDWIDTH_GOALS = {1: 0.70, 32: 0.85}
_PEER_GOAL, _FP8_GOAL = 1.0, 1.3
_PEERS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION, "math": SDPBackend.MATH}
_ROUNDS = 15
# Of what is drawn from N(0, 1) here, with room: one of 10^12 numbers is larger.
_LARGEST_VALUE = 7.0


class Decoding(NamedTuple):
    """One query of every sequence over a cache."""

    batch: int
    keys: int
    page_size: int
    fp8: bool
    nheads: int = 32
    nheads_k: int = 8
    head_dim: int = 128

    @property
    def bytes(self) -> int:
        """What keys and values occupy."""
        return 2 * self.batch * self.keys * self.nheads_k * self.head_dim * (1 if self.fp8 else 2)


class Forward(NamedTuple):
    """A forward of equal queries and keys."""

    batch: int
    seqlen: int
    causal: bool
    nheads: int = 16
    head_dim: int = 128


def decodings(dry: bool) -> list[Decoding]:
    """Batch sizes with goals, contiguous, paged, and with an fp8 cache."""
    keys, page_sizes = (96, (16,)) if dry else (32768, (16, 256))
    batches = (1, 3) if dry else tuple(_BANDWIDTH_GOALS)
    caches = [(0, False), *((page_size, False) for page_size in page_sizes), (0, True)]
    return [Decoding(batch, keys, page_size, fp8) for batch, (page_size, fp8) in itertools.product(batches, caches)]


def forwards(dry: bool) -> list[Forward]:
    """Lengths at a constant number of tokens."""
    lengths = (64,) if dry else (4096, 8192, 16384)
    tokens = 64 if dry else 16384
    return [Forward(tokens // seqlen, seqlen, causal) for seqlen, causal in itertools.product(lengths, (False, True))]


def fp8_dtype(device: torch.device) -> torch.dtype:
    """The 8-bit float that the GPU multiplies."""
    architecture = find(architecture_name(device)) if device.type == "cuda" else None
    fnuz = architecture is not None and architecture.fp8 == "fnuz"
    return torch.float8_e4m3fnuz if fnuz else torch.float8_e4m3fn


def decoding_contenders(shape: Decoding, device: torch.device) -> dict[str, Contender]:
    """Ours, a copy of as many bytes, and PyTorch's ways to compute what a contiguous bf16 cache gives."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(seqlen: int, nheads: int) -> Tensor:
        size = (shape.batch, seqlen, nheads, shape.head_dim)
        return torch.randn(size, generator=generator, device=device, dtype=torch.bfloat16)

    q, k, v = normal(1, shape.nheads), normal(shape.keys, shape.nheads_k), normal(shape.keys, shape.nheads_k)
    lengths = torch.full((shape.batch,), shape.keys, dtype=torch.int32, device=device)
    k_cache, v_cache, table = k, v, None
    descales: dict[str, Any] = {}
    if shape.fp8:
        (k_cache, k_scale), (v_cache, v_scale) = (
            quantize_per_head(x, shape.nheads_k, fp8_dtype(device)) for x in (k, v)
        )
        descales = {"k_descale": k_scale, "v_descale": v_scale}
        k, v = (
            (x.float() * scale[:, None, :, None]).to(q.dtype) for x, scale in ((k_cache, k_scale), (v_cache, v_scale))
        )
    if shape.page_size:
        pages = shape.keys // shape.page_size
        order = torch.randperm(shape.batch * pages, generator=generator, device=device)
        table = order.argsort().to(torch.int32).view(shape.batch, pages)
        k_cache, v_cache = (x.reshape(-1, shape.page_size, *x.shape[2:])[order] for x in (k, v))

    def ours() -> tuple[Tensor, ...]:
        out = v3.flash_attn_with_kvcache(q, k_cache, v_cache, cache_seqlens=lengths, page_table=table, **descales)
        assert isinstance(out, Tensor)
        return (out,)

    source = torch.zeros(shape.bytes // 2, dtype=torch.uint8, device=device)
    destination = torch.empty_like(source)

    def copy() -> tuple[Tensor, ...]:
        destination.copy_(source)
        return ()

    def grouped() -> tuple[Tensor, ...]:
        query, key, value = (x.transpose(1, 2) for x in (q, k, v))
        return (scaled_dot_product_attention(query, key, value, enable_gqa=True).transpose(1, 2),)

    def rows() -> tuple[Tensor, ...]:
        query = q.view(shape.batch, shape.nheads_k, -1, shape.head_dim)
        out = scaled_dot_product_attention(query, k.transpose(1, 2), v.transpose(1, 2))
        return (out.reshape(shape.batch, 1, shape.nheads, shape.head_dim),)

    found: dict[str, Contender] = {"ours": ours, "copy": copy}
    # cuDNN has no kernels for a CPU.
    peers = {name: backend for name, backend in _PEERS.items() if device.type == "cuda" or name != "cudnn"}
    for (name, backend), (way, call) in itertools.product(peers.items(), (("grouped", grouped), ("rows", rows))):
        found[f"{name}, {way}"] = _through(backend, call)
    return found


def forward_contenders(shape: Forward, device: torch.device) -> dict[str, Contender]:
    """Fp8 as ``ours``, and bf16 of the numbers that it stands for."""
    generator = torch.Generator(device).manual_seed(0)
    size = (shape.batch, shape.seqlen, shape.nheads, shape.head_dim)
    drawn = [torch.randn(size, generator=generator, device=device) for _ in range(3)]
    quantised = [quantize_per_head(x, shape.nheads, fp8_dtype(device)) for x in drawn]
    q8, k8, v8 = (x for x, _ in quantised)
    q, k, v = ((x.float() * scale[:, None, :, None]).to(torch.bfloat16) for x, scale in quantised)
    scales = (scale for _, scale in quantised)
    descales: dict[str, Any] = dict(zip(("q_descale", "k_descale", "v_descale"), scales, strict=True))

    def fp8() -> tuple[Tensor, ...]:
        out = v3.flash_attn_func(q8, k8, v8, causal=shape.causal, **descales)
        assert isinstance(out, Tensor)
        return (out,)

    def bf16() -> tuple[Tensor, ...]:
        out = v3.flash_attn_func(q, k, v, causal=shape.causal)
        assert isinstance(out, Tensor)
        return (out,)

    return {"ours": fp8, "bf16": bf16}


def _through(backend: SDPBackend, call: Contender) -> Contender:
    def chosen() -> tuple[Tensor, ...]:
        with sdpa_kernel(backend):
            return call()

    return chosen


def captured(calls: dict[str, Contender], device: torch.device) -> dict[str, Contender]:
    """Contenders as replays of a graph; those that cannot run are left out, ours never."""
    found: dict[str, Contender] = {}
    for name, call in calls.items():
        try:
            found[name] = _graph(call) if device.type == "cuda" else call
            found[name]()
        except RuntimeError as error:
            if name == "ours":
                raise
            print(f"{name} cannot run: {str(error).splitlines()[0]}", file=sys.stderr)
            found.pop(name, None)
    return found


def _graph(call: Contender) -> Contender:
    """A replay of ``call``, warmed up on a stream of its own as capturing asks."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()

    def replay() -> tuple[Tensor, ...]:
        graph.replay()
        return results

    return replay


def decoding_row(shape: Decoding, seconds: dict[str, float]) -> list[str]:
    """Cells of the table: bandwidths, their ratio and goal, the best peer and its ratio."""
    ours, copy = (shape.bytes / seconds[name] / 1e9 for name in ("ours", "copy"))
    peer = min((name for name in seconds if name not in ("ours", "copy")), key=seconds.__getitem__, default=None)
    cache = "fp8" if shape.fp8 else f"pages of {shape.page_size}" if shape.page_size else "contiguous"
    goal = _BANDWIDTH_GOALS.get(shape.batch)
    return [
        f"b{shape.batch} k{shape.keys}",
        cache,
        f"{ours:.1f}",
        f"{copy:.1f}",
        f"{ours / copy:.2f}",
        "-" if goal is None else f"{goal:.2f}",
        peer or "-",
        "-" if peer is None else f"{seconds[peer] / seconds['ours']:.2f}",
        f"{_PEER_GOAL:.2f}",
    ]


def _run(
    shapes: list[Decoding] | list[Forward],
    contenders: Callable[..., dict[str, Contender]],
    device: torch.device,
    rounds: int,
) -> list[dict[str, float]]:
    progress = Progress(len(shapes))
    taken = []
    for shape in shapes:
        progress.step(str(shape))
        calls = captured(contenders(shape, device), device)
        # Probabilities are rounded to 8 bits, which moves an output by 2 ** -4 of the largest value at most.
        beyond = _LARGEST_VALUE / 16 if isinstance(shape, Forward) else 0.0
        require_agreement({name: call for name, call in calls.items() if name != "copy"}, beyond)
        taken.append(measure(calls, device, rounds))
    return taken


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="auto", help="backend to measure (default: what auto chooses)")
    parser.add_argument("--json", type=Path, help="file for one JSON line a shape")
    parser.add_argument("--dry", action="store_true", help="tiny shapes on CPU tensors: shows that the script works")
    options = parser.parse_args()
    if not options.dry and not torch.cuda.is_available():
        raise SystemExit("PyTorch sees no GPU; --dry runs the script on CPU tensors")
    device = torch.device("cpu" if options.dry else "cuda")
    decoded, forwarded = decodings(options.dry), forwards(options.dry)
    rounds = 2 if options.dry else _ROUNDS
    with torch.no_grad(), flash_attn.use_backend(options.backend):
        decoding = _run(decoded, decoding_contenders, device, rounds)
        forward = _run(forwarded, forward_contenders, device, rounds)
    name = "the CPU (dry run)" if options.dry else torch.cuda.get_device_name(device)
    print(f"backend {options.backend} on {name}, torch {torch.__version__}, flash_attn {flash_attn.__version__}")
    header = ["decoding", "cache", "GB/s", "copy GB/s", "of copy", "goal", "best of PyTorch", "its time/ours", "goal"]
    print(terminal_table(header, [decoding_row(*pair) for pair in zip(decoded, decoding, strict=True)]))
    rows = [
        [f"b{shape.batch} s{shape.seqlen}", "causal" if shape.causal else "full"]
        + [f"{seconds[x] * 1e3:.3f} ms" for x in ("ours", "bf16")]
        + [f"{seconds['bf16'] / seconds['ours']:.2f}", f"{_FP8_GOAL:.2f}"]
        for shape, seconds in zip(forwarded, forward, strict=True)
    ]
    print(terminal_table(["fp8 forward", "mask", "fp8", "bf16", "bf16/fp8", "goal"], rows))
    if options.json is not None:
        versions = {"backend": options.backend, "device": name, "torch": torch.__version__}
        measured: list[tuple[Decoding | Forward, dict[str, float]]] = [
            *zip(decoded, decoding, strict=True),
            *zip(forwarded, forward, strict=True),
        ]
        lines = [json.dumps({**versions, **shape._asdict(), "seconds": seconds}) for shape, seconds in measured]
        options.json.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
