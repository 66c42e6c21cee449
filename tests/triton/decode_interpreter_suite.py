"""A grid of decode calls in Triton's interpreter; the file's variable must be set before Triton is imported:

``TRITON_INTERPRET=1 python -m pytest tests/triton/decode_interpreter_suite.py``. ``test_decode_interpreter.py`` runs
it in a process of its own.
"""

from __future__ import annotations

import itertools

import pytest
import torch
import triton
from decode_problems import compare_case, failed
from flash_attn.triton_amd import interpreter
from flash_attn.triton_amd.decode_config import DecodeConfig

from flash_attn.testing import DecodeCase

assert triton.knobs.runtime.interpret, "set TRITON_INTERPRET=1"
interpreter.install()

CONFIG = DecodeConfig(block_m=32, block_n=64)
HEADS = ((2, 2), (8, 2), (6, 1))
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
MASKS: tuple[dict[str, object], ...] = (
    {"causal": True},
    {"causal": False},
    {"causal": False, "window_size": (90, 5)},
    {"causal": False, "window_size": (3, -1)},
    {"causal": True, "softcap": 2.0},
    {"causal": True, "alibi_dims": 2},
    {"causal": False, "alibi_dims": 1, "softcap": 5.0, "sink": True},
    {"causal": True, "sink": True, "leftpad": True},
)


def _run(case: DecodeCase, num_splits: int) -> None:
    wrong = failed(compare_case(case, CONFIG, num_splits))
    assert not wrong, f"{case}, num_splits {num_splits}: {wrong}"


@pytest.mark.parametrize("seqlen_q", [1, 2, 3, 5, 8, 15, 16, 40])
@pytest.mark.parametrize("heads", HEADS)
def test_rows(seqlen_q: int, heads: tuple[int, int]) -> None:
    for num, (dtype, page_size) in enumerate(((F32, 0), (F16, 1), (BF16, 16), (F32, 256))):
        lengths = (0, 130 + seqlen_q, 255)
        case = DecodeCase(lengths, seqlen_q, num % 3, 260, *heads, 16, 16, dtype, page_size, seed=num)
        _run(case, 1 + (seqlen_q + num) % 4)


@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_masks(mask: dict[str, object]) -> None:
    for num, (seqlen_q, page_size) in enumerate(itertools.product((1, 4, 16), (0, 16))):
        case = DecodeCase((0, 3, 190), seqlen_q, 0, 200, 4, 2, 16, 24, F32, page_size, seed=num, **mask)  # type: ignore[arg-type]
        for num_splits in (1, 3):
            _run(case, num_splits)


@pytest.mark.parametrize("page_size", [0, 1, 16, 256])
def test_appending_and_rotating(page_size: int) -> None:
    for num, (rotary_dim, interleaved, seqlen_new) in enumerate(
        itertools.product((0, 6, 32), (True, False), (1, 4, 20))
    ):
        dtype = (F32, F16, BF16)[num % 3]
        case = DecodeCase(
            (0, 14, 30, 250, 255), min(seqlen_new, 4), seqlen_new, 256, 2, 1, 32, 16, dtype, page_size,
            causal=num % 2 == 0, rotary_dim=rotary_dim, rotary_interleaved=interleaved,
            batch_idx=page_size == 0 and num % 3 == 0, leftpad=num % 4 == 1, seed=num,
        )  # fmt: skip
        _run(case, 1 + num % 3)


@pytest.mark.parametrize("num_splits", [0, 1, 5, 33])
@pytest.mark.parametrize("page_size", [0, 1, 16, 256])
def test_long_ragged_caches(page_size: int, num_splits: int) -> None:
    lengths = (0, 1, 63, 64, 65, 4095, 4096, 4097)
    _run(DecodeCase(lengths, 1, 0, 4100, 4, 2, 16, 16, BF16, page_size), num_splits)
