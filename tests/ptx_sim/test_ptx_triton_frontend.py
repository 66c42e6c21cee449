"""The Triton front door of ptx_sim: arguments, reports, faults and drivers."""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

import ptx_sim


@triton.jit
def overrun(x, out, BLOCK: tl.constexpr):  # noqa: ANN001, ANN201
    place = tl.arange(0, BLOCK)
    tl.store(out + place, tl.load(x + place))


@triton.jit
def scaled(x, out, count, factor, BLOCK: tl.constexpr):  # noqa: ANN001, ANN201
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    tl.store(out + place, tl.load(x + place, mask=inside) * factor, mask=inside)


def test_scalars_strided_views_and_reports() -> None:
    x, out = torch.randn(300), torch.zeros(300)
    with ptx_sim.triton_device("sm_80") as device:
        scaled[(3,)](x, out, 300, 0.5, BLOCK=128)
    assert torch.equal(out, x * 0.5)
    assert device.last_report is not None
    assert device.last_report.thread_blocks == 3


def test_faults_name_the_python_line() -> None:
    x, out = torch.randn(63), torch.zeros(64)
    with ptx_sim.triton_device("sm_80"), pytest.raises(ptx_sim.OutOfBoundsError, match=r"test_ptx_triton_frontend\.py"):
        overrun[(1,)](x, out, BLOCK=64)


def test_unknown_target_is_refused() -> None:
    with pytest.raises(ValueError, match="sm_80"):
        ptx_sim.triton_device("gfx942")


def test_the_previous_driver_comes_back() -> None:
    with ptx_sim.triton_device("sm_80"):
        outer = triton.runtime.driver.active
        device = ptx_sim.triton_device("sm_89")
        assert triton.runtime.driver.active.get_current_target().arch == 89
        device.close()
        assert triton.runtime.driver.active is outer
