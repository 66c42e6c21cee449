"""The Triton front door: every kind of argument and decorator, several kernels and targets in one process."""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

from typing import Any

import pytest
import torch
import triton
import triton.language as tl

import amdgpu_sim

TARGETS = list(amdgpu_sim.TARGETS)


@triton.jit
def scaled_sum(x, y, out, count, stride, factor, BLOCK: tl.constexpr):  # noqa: ANN001, ANN201
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    value = tl.load(x + place * stride, mask=inside)
    if y is not None:
        value += tl.load(y + place, mask=inside) * factor
    tl.store(out + place, value, mask=inside)


@triton.autotune([triton.Config({"BLOCK": 64}), triton.Config({"BLOCK": 256}, num_warps=2)], key=["count"])
@triton.heuristics({"EVEN": lambda arguments: arguments["count"] % 64 == 0})
@triton.jit
def tuned_copy(x, out, count, BLOCK: tl.constexpr, EVEN: tl.constexpr):  # noqa: ANN001, ANN201
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    tl.store(out + place, tl.load(x + place, mask=inside) + EVEN, mask=inside)


@triton.jit
def overrun(x, out, BLOCK: tl.constexpr):  # noqa: ANN001, ANN201
    place = tl.arange(0, BLOCK)
    tl.store(out + place, tl.load(x + place))


@triton.jit
def count_up(counter, BLOCK: tl.constexpr):  # noqa: ANN001, ANN201
    tl.atomic_add(counter + tl.arange(0, BLOCK) % 3, 1)


@triton.jit
def three_dimensions(out):  # noqa: ANN001, ANN201
    x, y, z = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    size_x, size_y = tl.num_programs(0), tl.num_programs(1)
    tl.store(out + (z * size_y + y) * size_x + x, 100 * z + 10 * y + x)


@pytest.mark.parametrize("target", TARGETS)
def test_strides_scalars_and_none(target: str) -> None:
    x, y, out = torch.randn(300, 2)[:, 1], torch.randn(300), torch.zeros(300)
    with amdgpu_sim.triton_device(target):
        scaled_sum[(triton.cdiv(300, 128),)](x, y, out, 300, x.stride(0), 2.5, BLOCK=128)
        # A product and a sum, each rounded at most once.
        error = (out.double() - (x.double() + 2.5 * y.double())).abs()
        assert bool((error <= torch.finfo(torch.float32).eps * (x.abs() + 2.5 * y.abs())).all())
        scaled_sum[(3,)](x, None, out, 300, x.stride(0), 2.5, BLOCK=128)
        assert torch.equal(out, x)


@pytest.mark.parametrize("target", TARGETS)
def test_autotuned_kernel_with_heuristics(target: str) -> None:
    for count in (128, 100):
        x, out = torch.randn(count), torch.zeros(count)
        with amdgpu_sim.triton_device(target):
            tuned_copy[lambda meta: (triton.cdiv(meta["count"], meta["BLOCK"]),)](x, out, count)
        assert torch.equal(out, x + float(count == 128))


def test_plain_call_and_restoring_the_driver() -> None:
    with amdgpu_sim.triton_device("gfx942"):
        outer = triton.runtime.driver.active
        device = amdgpu_sim.triton_device("gfx1201")
        assert triton.runtime.driver.active.get_current_target().arch == "gfx1201"
        device.close()
        assert triton.runtime.driver.active is outer


def test_options_and_report_are_those_of_the_device_that_is_installed() -> None:
    x, out = torch.randn(256), torch.zeros(256)
    arguments = (x, None, out, 256, 1, 0.0)
    with amdgpu_sim.triton_device("gfx942") as first:
        scaled_sum[(1,)](*arguments, BLOCK=256)
    with (
        amdgpu_sim.triton_device("gfx942", max_instructions=5) as second,
        pytest.raises(amdgpu_sim.DeadlockError),
    ):
        scaled_sum[(1,)](*arguments, BLOCK=256)
    assert first.last_report is not None
    assert second.last_report is None


def test_out_of_bounds_names_the_python_line() -> None:
    x, out = torch.randn(63), torch.zeros(64)
    with (
        amdgpu_sim.triton_device("gfx942"),
        pytest.raises(amdgpu_sim.OutOfBoundsError, match=r"test_triton_frontend\.py"),
    ):
        overrun[(1,)](x, out, BLOCK=64)


@pytest.mark.parametrize("target", TARGETS)
def test_atomics_serve_every_lane(target: str) -> None:
    counter = torch.zeros(3, dtype=torch.int32)
    with amdgpu_sim.triton_device(target):
        count_up[(5,)](counter, BLOCK=128)
    assert counter.tolist() == [215, 215, 210]


@pytest.mark.parametrize("target", TARGETS)
def test_grid_of_three_dimensions(target: str) -> None:
    out = torch.zeros(2, 3, 4, dtype=torch.int32)
    with amdgpu_sim.triton_device(target, seed=5):
        three_dimensions[(4, 3, 2)](out)
    assert out.flatten().tolist() == [100 * z + 10 * y + x for z in range(2) for y in range(3) for x in range(4)]


def test_unknown_target_is_refused() -> None:
    with pytest.raises(ValueError, match="gfx1201"):
        amdgpu_sim.triton_device("gfx906")


def test_launch_is_counted() -> None:
    x, out = torch.randn(256), torch.zeros(256)
    with amdgpu_sim.triton_device("gfx942") as device:
        scaled_sum[(1,)](x, None, out, 256, 1, 0.0, BLOCK=256, num_warps=4)
        report: Any = device.last_report
    assert report.waves == 4
    assert report.by_category()["global_load"] == 4
    assert report.bytes("global_store") == 256 * 4
    assert report.instructions == sum(report.by_category().values())
