"""The figures that a GPU benchmark prints, from times made up here."""

import re
import time

import pytest
import torch

from benchmarks.anchors import ANCHORS, nearest
from benchmarks.gpu_attention import Shape, beside_anchor, report
from flash_attn.architectures import ARCHITECTURES
from flash_attn.diagnostics.timing import seconds_a_call, take_turns

MI300X_CAUSAL = ("gfx942", "forward", "bfloat16", 128, True)


def test_every_figure_has_an_architecture_of_ours_a_source_and_stays_below_the_peak() -> None:
    for anchor in ANCHORS:
        peaks = ARCHITECTURES[anchor.architecture].peaks
        assert peaks
        peak = peaks.fp8_tflops if anchor.dtype.startswith("float8") else peaks.fp16_tflops
        assert peak
        assert 0 < anchor.tflops < peak
        assert anchor.source


@pytest.mark.parametrize(("seqlen", "tflops"), [(1024, 164), (4096, 260), (8192, 547), (16384, 364)])
def test_the_closest_length_and_its_best_kernel(seqlen: int, tflops: float) -> None:
    found = nearest(*MI300X_CAUSAL, seqlen)
    assert found
    assert found.tflops == tflops


def test_a_class_is_architecture_phase_width_head_dim_and_mask() -> None:
    assert nearest("gfx90a", "forward", "bfloat16", 128, True, 4096) is None
    assert nearest("gfx942", "backward", "bfloat16", 64, True, 4096) is None
    fp16, bf16, fp8 = (
        nearest("sm_90", "forward", dtype, 128, False, 16384) for dtype in ("float16", "bfloat16", "float8_e5m2")
    )
    assert fp16 == bf16
    assert bf16
    assert fp8
    assert (bf16.tflops, fp8.tflops) == (702, 1062)


def test_a_figure_of_unstated_mask_serves_both_and_says_so() -> None:
    full, causal = (nearest("gfx942", "backward", "bfloat16", 128, mask, 4096) for mask in (False, True))
    assert full == causal
    assert "mask not stated" in str(full)


def test_ours_over_the_public_figure() -> None:
    shape = Shape("forward", 128, 16384, True, 1, 16)
    seconds = shape.flops / (182 * 1e12)
    assert beside_anchor(shape, seconds, "gfx942") == ["0.50", "364", "Triton on MI300X, bfloat16, causal, s16384"]
    assert beside_anchor(shape, seconds, "gfx90a") == beside_anchor(shape, seconds, None) == ["-", "-", "-"]


def test_a_report_has_the_public_figure_beside_its_row() -> None:
    shape = Shape("forward", 128, 16384, False, 1, 16)
    seconds = {"ours": shape.flops / 351e12, "flash": shape.flops / 175.5e12}
    header, _, row = report("triton", [(shape, seconds)], ["flash"], "sm_90").splitlines()[:3]
    assert header.endswith("flash/ours  ours/public  public TFLOP/s  public figure")
    assert re.split(r"\s{2,}", row)[4:] == ["351.0", "175.5", "2.00", "0.50", "702", str(ANCHORS[19])]
    assert ANCHORS[19].product == "H200"


def test_contenders_take_turns() -> None:
    order: list[str] = []

    def timer(name: str) -> float:
        order.append(name)
        return float(len(order))

    taken = take_turns([lambda: timer("ours"), lambda: timer("peer")], rounds=4)
    assert taken == [(1, 2), (3, 4), (5, 6), (7, 8)]
    assert order == ["ours", "peer"] * 4


@pytest.mark.parametrize(("rounds", "seconds", "expected"), [(9, 0.0, 3), (2, 0.0, 2), (5, 60.0, 5)])
def test_time_ends_the_rounds_but_three(rounds: int, seconds: float, expected: int) -> None:
    assert len(take_turns([lambda: 1.0], rounds, seconds)) == expected


def test_seconds_are_those_of_one_call() -> None:
    assert seconds_a_call(lambda: time.sleep(0.01), torch.device("cpu"), repeats=3) >= 0.01
