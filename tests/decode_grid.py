"""The acceptance grid of decoding: what every backend computes, by name, against the definition in float64.

``CORE`` has every feature and page size once and is part of every run of the tests; ``FULL`` crosses them and is
marked slow; ``SIMULATED`` names what of ``CORE`` runs as machine code on each simulated GPU. The cpu and reference
backends run it in ``test_decode_grid.py``, Triton in ``triton/decode_interpreter_suite.py`` and
``triton/test_grid_simulated.py``.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import torch

from flash_attn.testing import AttentionCase, Comparison, DecodeCase, compare_attention, compare_decode

Case = DecodeCase | AttentionCase

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
PAGE_SIZES = (0, 1, 16, 256)
EDGES = (0, 1, 31, 32, 33, 63, 64, 65, 255, 256, 257, 4095, 4096, 4097)
# Appended tokens cross a page of 16 in the second and the third, a page of 256 in the fourth and the fifth.
CROSSING = (0, 14, 31, 254, 255)

_CROSSING = DecodeCase(CROSSING, 3, 3, 260, 4, 2, 16, 16)
_RAGGED = DecodeCase((300, 40, 17, 0, 255), 0, 0, 320, 4, 2, 16, 16, seqlens_q=(1, 40, 0, 3, 1))
_RAGGED_APPEND = replace(_RAGGED, seqlens_new=(1, 19, 2, 3, 1), seqlen_new=19, dtype=BF16, rotary_dim=8)
_LONG = DecodeCase((0, 1, 1000, 4095, 4097), 1, 0, 4100, 4, 1, 16, 16, BF16)
# Rows of decoding beside those of a prefill, keys in pages.
_MIXED = AttentionCase((1, 70, 0, 1, 5), (300, 90, 17, 1, 257), 4, 2, 16, 16, varlen=True, causal=True, backward=False)
_FEW = replace(_MIXED, seqlens_q=(1, 1, 0, 1, 5), seqused=True)

CORE: dict[str, Case] = {
    "ragged lengths": DecodeCase((0, 1, 17, 64, 65), 1, 0, 96, 8, 2, 16, 16, BF16),
    "page 1, crossed": replace(_CROSSING, page_size=1, dtype=F16, rotary_dim=16),
    "page 16, crossed": replace(_CROSSING, page_size=16, dtype=BF16, rotary_dim=8, rotary_interleaved=False),
    "page 256, crossed": replace(_CROSSING, page_size=256, rotary_dim=16),
    "contiguous, appended": replace(_CROSSING, rotary_dim=6),
    "long, page 16": replace(_LONG, page_size=16, seqlen_q=2),
    "long, page 256, appended": replace(
        _LONG, page_size=256, cache_seqlens=(0, 255, 4094, 4095, 4097), capacity=4110, seqlen_q=4, seqlen_new=4
    ),
    "permuted cache rows, appended": replace(_CROSSING, batch_idx=True, dtype=F16),
    "shared cache row": DecodeCase((40, 9, 17), 2, 0, 48, batch_idx=True, shares_cache=True),
    "shared pages": DecodeCase((40, 9, 17), 2, 0, 48, page_size=16, shares_cache=True, num_splits=2),
    "left padding": DecodeCase((17, 90, 64), 2, 0, 96, head_dim=16, head_dim_v=24, leftpad=True),
    "left padding, paged, appended": replace(_CROSSING, page_size=16, leftpad=True, num_splits=2),
    "not causal, rotary at one position": replace(_CROSSING, causal=False, rotary_dim=16, page_size=16),
    "window": DecodeCase((3, 90, 200), 5, 0, 210, causal=False, window_size=(37, 3), page_size=16, num_splits=2),
    "left window": DecodeCase((3, 90, 200), 1, 1, 210, window_size=(64, -1), page_size=1, dtype=BF16),
    "chunks": DecodeCase((3, 90, 200), 5, 0, 210, page_size=16, attention_chunk=64, num_splits=2),
    "chunks, not causal, appended": replace(_CROSSING, causal=False, attention_chunk=50, rotary_dim=16, dtype=BF16),
    "packed prefill and decoding, used rows, chunks": replace(
        _MIXED, page_size=16, seqused_q=True, attention_chunk=32, dtype=BF16
    ),
    "packed decoding, used rows": replace(_FEW, seqused_q=True, num_splits=3),
    "qv": DecodeCase((3, 90), 2, 0, 96, 8, 1, 16, 64, BF16, page_size=16, qv=True, num_splits=2),
    "qv, appended": replace(_CROSSING, head_dim_v=40, page_size=16, qv=True, rotary_dim=16, leftpad=True),
    "qv, latent": DecodeCase((3, 40), 1, 0, 48, 16, 1, 64, 512, BF16, page_size=16, qv=True),
    "qv, fp8 cache": DecodeCase(
        (3, 90), 2, 0, 96, 4, 2, 16, 64, BF16, 16, kv_dtype=torch.float8_e4m3fn, descale=True, qv=True
    ),
    "softcap, ALiBi": DecodeCase((3, 90), 2, 0, 96, softcap=2.0, alibi_dims=2, num_splits=3),
    "sink": DecodeCase((0, 90), 2, 0, 96, sink=True, alibi_dims=1, dtype=F16, num_splits=3),
    "sixteen rows": DecodeCase((33, 90), 16, 0, 96, 6, 1, dtype=BF16, page_size=16),
    "chunk of a prefill": DecodeCase((0, 14, 250), 40, 40, 300, 4, 2, dtype=BF16, page_size=16, rotary_dim=32),
    "rows of several sequences": _RAGGED,
    "prefill and decoding, page 1": replace(_RAGGED_APPEND, page_size=1),
    "prefill and decoding, page 16": replace(_RAGGED_APPEND, page_size=16, rotary_offset=5),
    "prefill and decoding, page 256": replace(_RAGGED_APPEND, page_size=256, causal=False),
    "packed prefill and decoding, page 1": replace(_MIXED, page_size=1, dtype=BF16),
    "packed prefill and decoding, page 16": replace(_MIXED, page_size=16),
    "packed prefill and decoding, page 256": replace(_MIXED, page_size=256, dtype=F16, causal=False),
    "packed decoding, page 16": replace(_FEW, page_size=16, dtype=BF16),
    "scales, appended": replace(_CROSSING, page_size=16, descale=True, num_splits=2),
    "fp8 cache, appended": replace(
        _CROSSING, page_size=16, dtype=BF16, kv_dtype=torch.float8_e4m3fn, descale=True, num_splits=2
    ),
    "fp8 cache of gfx942, page 256": DecodeCase(
        (0, 254, 300), 2, 0, 512, dtype=F16, page_size=256, kv_dtype=torch.float8_e4m3fnuz, descale=True
    ),
    "fp8 queries, appended": DecodeCase(
        (3, 90), 2, 2, 96, dtype=torch.float8_e4m3fn, descale=True, page_size=16, causal=False, num_splits=2
    ),
}  # fmt: skip

SIMULATED = (
    "page 1, crossed",
    "page 16, crossed",
    "page 256, crossed",
    "long, page 16",
    "permuted cache rows, appended",
    "shared cache row",
    "left padding, paged, appended",
    "not causal, rotary at one position",
    "window",
    "chunks",
    "chunks, not causal, appended",
    "packed decoding, used rows",
    "qv",
    "qv, latent",
    "qv, appended",
    "qv, fp8 cache",
    "prefill and decoding, page 16",
    "packed prefill and decoding, page 1",
    "packed prefill and decoding, page 256",
    "fp8 cache, appended",
    "fp8 queries, appended",
)

_CALLS = {
    "1 row": (1, 0),
    "1 appended": (1, 1),
    "4 appended": (4, 4),
    "16 rows": (16, 0),
    "40 appended": (40, 40),
}
_MASKS: dict[str, dict[str, object]] = {
    "causal": {},
    "full": {"causal": False},
    "window": {"causal": False, "window_size": (90, 5)},
    "left window": {"causal": False, "window_size": (3, -1)},
    "softcap": {"softcap": 2.0},
    "ALiBi": {"alibi_dims": 2},
    "ALiBi, softcap, sink": {"causal": False, "alibi_dims": 1, "softcap": 5.0, "sink": True},
    "sink, left padding": {"sink": True, "leftpad": True},
}
_HEADS = ((2, 2), (8, 2), (6, 1))
_DTYPES = (F32, F16, BF16)
# Dimensions that turn, and whether pairs are neighbours.
_ROTARY = ((0, True), (16, True), (6, False), (16, False), (10, True))


def _crossed() -> dict[str, Case]:
    """Page sizes, calls and masks, each with the others; heads, dtypes, rotations and splits take turns."""
    cases: dict[str, Case] = {}
    for number, (page_size, call, mask) in enumerate(itertools.product(PAGE_SIZES, _CALLS, _MASKS)):
        seqlen_q, seqlen_new = _CALLS[call]
        rotary_dim, interleaved = _ROTARY[number % 5] if seqlen_new else (0, True)
        cases[f"page {page_size}, {call}, {mask}"] = DecodeCase(
            CROSSING, seqlen_q, seqlen_new, 296, *_HEADS[number // 3 % 3], 16, 24, _DTYPES[number % 3], page_size,
            batch_idx=page_size == 0 and number % 2 == 0, shares_cache=seqlen_new == 0 and number % 4 < 2,
            rotary_dim=rotary_dim, rotary_interleaved=interleaved, num_splits=number % 4, seed=number,
            **_MASKS[mask],  # type: ignore[arg-type]
        )  # fmt: skip
    return cases


def _lengths() -> dict[str, Case]:
    """Caches of 0 to 4097 tokens."""
    cases: dict[str, Case] = {}
    swept = (*range(0, 4098, 41), 4097)
    for page_size in PAGE_SIZES:
        sweep = DecodeCase(swept, 1, 0, 4097, 2, 1, 16, 16, F16, page_size, seed=page_size)
        cases[f"page {page_size}, lengths 0 to 4097"] = sweep
        for num_splits in (0, 1, 5, 33):
            edges = DecodeCase(EDGES, 1, 0, 4100, 4, 2, 16, 16, BF16, page_size, num_splits=num_splits)
            cases[f"page {page_size}, {num_splits} splits, edges"] = edges
            appended = replace(edges, seqlen_q=3, seqlen_new=3, rotary_dim=16, dtype=F32)
            cases[f"page {page_size}, {num_splits} splits, edges, appended"] = appended
    return cases


def _ragged() -> dict[str, Case]:
    """Sequences of a prefill and of decoding in one call, over caches and packed."""
    cases: dict[str, Case] = {}
    for page_size, causal, dtype in itertools.product(PAGE_SIZES, (True, False), _DTYPES):
        name = f"page {page_size}, {'causal' if causal else 'full'}, {str(dtype).removeprefix('torch.')}"
        shape = {"page_size": page_size, "causal": causal, "dtype": dtype}
        cases[f"rows of several sequences, {name}"] = replace(_RAGGED, **shape)  # type: ignore[arg-type]
        cases[f"prefill and decoding, {name}"] = replace(_RAGGED_APPEND, **shape)  # type: ignore[arg-type]
        cases[f"packed prefill and decoding, {name}"] = replace(_MIXED, **shape)  # type: ignore[arg-type]
        cases[f"packed decoding, {name}"] = replace(_FEW, **shape)  # type: ignore[arg-type]
    return cases


FULL: dict[str, Case] = {**CORE, **_crossed(), **_lengths(), **_ragged()}


def is_fp8(case: Case) -> bool:
    """Whether a tensor of the case is of an 8-bit dtype."""
    return case.dtype.itemsize == 1 or (case.kv_dtype is not None and case.kv_dtype.itemsize == 1)


def is_extended(case: Case) -> bool:
    """Whether the case has an argument of the v3 interface that the native backends refuse."""
    used_rows = isinstance(case, AttentionCase) and case.seqused_q
    return case.qv or case.attention_chunk != 0 or used_rows


def failures(name: str) -> list[Comparison]:
    """What the backend in force computes of a case further from the oracle than is allowed."""
    case = FULL[name]
    comparisons = compare_attention(case) if isinstance(case, AttentionCase) else compare_decode(case)
    return [comparison for comparison in comparisons if not comparison.passed]
