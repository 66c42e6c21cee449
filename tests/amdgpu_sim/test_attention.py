"""Flash-attention forward and backward, compiled by Triton for every target and executed through both doors.

The cases are a covering array: every two values of different features, the target among them, occur together.
"""

from __future__ import annotations

from itertools import combinations, product
from typing import Any, NamedTuple

import attention_kernels as kernels
import numpy as np
import pytest
import torch
import triton
from attention_reference import Attention, Rounding

import amdgpu_sim

TARGETS = list(amdgpu_sim.TARGETS)
# the 8-bit type of each target's matrix instructions, or one that Triton converts in software
FP8 = {
    "gfx90a": torch.float8_e5m2, "gfx942": torch.float8_e4m3fnuz, "gfx950": torch.float8_e4m3fn,
    "gfx1100": torch.float8_e5m2, "gfx1201": torch.float8_e4m3fn,
}  # fmt: skip
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
SCALE = 0.125


class Case(NamedTuple):
    """One configuration; ``tile`` is the matrix instruction's M = N on CDNA, ``buffer`` buffer instructions."""

    target: str
    dtype: str
    head_dim: int
    stages: int
    tile: int
    buffer: bool
    causal: bool


def covering(dtypes: list[str]) -> list[Case]:
    """Twenty cases in which every two values of different features occur together."""
    cases = []
    for (t, target), n in product(enumerate(TARGETS), range(4)):
        head_dim = (32, 64, 80, 128)[(t + n) % 4 if len(dtypes) == 4 else n]
        dtype = dtypes[n if len(dtypes) == 4 else (t + n) % 3]
        stages, tile, buffer, causal = (bit % 2 for bit in (n + t // 2, t + n // 2, t + n + n // 2, t + n + t // 2))
        cases.append(Case(target, dtype, head_dim, 1 + stages, 16 + 16 * tile, bool(buffer), bool(causal)))
    return cases


FORWARD = covering(["fp16", "bf16", "fp32", "fp8"])
BACKWARD = covering(["fp16", "bf16", "fp32"])


@pytest.mark.parametrize("cases", [FORWARD, BACKWARD])
def test_cases_cover_all_pairs(cases: list[Case]) -> None:
    values = [sorted({case[feature] for case in cases}) for feature in range(len(Case._fields))]
    assert [len(v) for v in values] in ([5, 4, 4, 2, 2, 2, 2], [5, 3, 4, 2, 2, 2, 2])
    for one, other in combinations(range(len(values)), 2):
        assert {(case[one], case[other]) for case in cases} == set(product(values[one], values[other]))


def rounding(dtype: str, target: str) -> Rounding:
    """Of the tensors' type; float32 products may take their inputs with ten bits of mantissa (xf32) on gfx942."""
    if dtype == "fp32":
        return Rounding(2.0**-24, 2.0**-149, 2.0**-11 if target == "gfx942" else 0.0)
    facts = torch.finfo(FP8[target] if dtype == "fp8" else DTYPES[dtype])
    # the smallest subnormal number
    return Rounding(facts.eps / 2, facts.smallest_normal * facts.eps)


def options(case: Case) -> dict[str, Any]:
    """Compile options; RDNA has half of CDNA's registers a wave and spills large tiles unless more waves share them."""
    rdna = not case.target.startswith("gfx9")
    chosen: dict[str, Any] = {"num_stages": case.stages, "num_warps": 8 if rdna and case.head_dim > 64 else 4}
    if not rdna:
        chosen["matrix_instr_nonkdim"] = case.tile
    return chosen


def inputs(case: Case, seqlen: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    dtype = FP8[case.target] if case.dtype == "fp8" else DTYPES[case.dtype]
    return [torch.randn(1, seqlen, 2, case.head_dim).to(dtype) for _ in range(4)]


def doubles(tensors: list[torch.Tensor]) -> list[np.ndarray[Any, Any]]:
    return [tensor.double().numpy() for tensor in tensors]


def assembly_door(target: str, compiled: Any, grid: tuple[int, int], arguments: list[Any]) -> amdgpu_sim.RunReport:
    """Launch the assembly text that Triton compiled on the tensors' memory, without Triton."""
    memory = amdgpu_sim.GlobalMemory()
    values: list[Any] = []
    for number, value in enumerate(arguments):
        if isinstance(value, torch.Tensor):
            memory.add_host(value.data_ptr(), value.untyped_storage().nbytes(), f"argument {number}")
            value = value.data_ptr()
        values.append(value)
    program = amdgpu_sim.Program(compiled.asm["amdgcn"])
    items = compiled.metadata.num_warps * amdgpu_sim.TARGETS[target].wave_size
    spare = len([a for a in program.kernel.arguments if not a.kind.startswith("hidden_")]) - len(values)
    return program.launch(grid, (items,), values + [None] * spare, memory=memory, lds_bytes=compiled.metadata.shared)


@pytest.fixture(autouse=True)
def _buffer_instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffer instructions are what Triton emits for tensors below 2 GiB, unless it is told not to."""
    case = request.node.callspec.params.get("case") if hasattr(request.node, "callspec") else None
    if case is not None:
        monkeypatch.setenv("AMDGCN_USE_BUFFER_OPS", str(int(case.buffer)))


def check_instructions(case: Case, report: amdgpu_sim.RunReport) -> None:
    """The case is what it says: its memory and matrix instructions were executed."""
    target = case.target
    executed = {instruction.line.mnemonic for instruction, _ in report.executed()}
    assert any(name.startswith("buffer_load") for name in executed) == case.buffer
    native = case.dtype in ("fp16", "bf16") or (case.dtype == "fp8" and target in ("gfx942", "gfx950", "gfx1201"))
    if native and target.startswith("gfx9"):
        matrix = {name for name in executed if name.startswith("v_mfma")}
        assert matrix
        assert all(f"_{case.tile}x{case.tile}x" in name for name in matrix)
    elif native:
        assert any(name.startswith("v_wmma") for name in executed)


@pytest.mark.parametrize("case", FORWARD, ids=lambda case: "-".join(map(str, case)))
def test_forward(case: Case) -> None:
    target, seqlen = case.target, 80
    q, k, v, _ = inputs(case, seqlen)
    out = torch.full(q.shape, float("nan"), dtype=torch.float32 if case.dtype == "fp8" else q.dtype)
    lse = torch.full((1, 2, seqlen), float("nan"))
    grid = (triton.cdiv(seqlen, 64), 2)
    arguments = [q, k, v, out, lse, *q.stride()[:3], SCALE, seqlen, 2]
    with amdgpu_sim.triton_device(target, seed=1) as device:
        compiled = kernels.attention_forward[grid](
            *arguments, HEAD_DIM=case.head_dim, BLOCK_D=triton.next_power_of_2(case.head_dim), CAUSAL=case.causal,
            BLOCK_M=64, BLOCK_N=32, **options(case),
        )  # fmt: skip
    assert device.last_report is not None
    check_instructions(case, device.last_report)
    expected = Attention(doubles([q, k, v, q]), scale=SCALE, causal=case.causal)
    used = rounding(case.dtype, target)
    stored = rounding("fp32", "") if case.dtype == "fp8" else used
    out_bound, lse_bound = expected.forward_bounds(used, stored)
    assert (np.abs(out.double().numpy() - expected.out.swapaxes(1, 2)) <= out_bound).all()
    assert (np.abs(lse.numpy() - expected.lse) <= lse_bound).all()
    first = out.clone(), lse.clone()
    out.zero_()
    report = assembly_door(target, compiled, grid, arguments)
    assert torch.equal(out, first[0])
    assert torch.equal(lse, first[1])
    assert report.by_category() == device.last_report.by_category()


@pytest.mark.parametrize("case", BACKWARD, ids=lambda case: "-".join(map(str, case)))
def test_backward(case: Case) -> None:
    target, seqlen = case.target, 70
    q, k, v, dout = inputs(case, seqlen)
    expected = Attention(doubles([q, k, v, dout]), scale=SCALE, causal=case.causal)
    dq = torch.zeros(q.shape)
    dk, dv = torch.full_like(k, float("nan")), torch.full_like(v, float("nan"))
    lse, delta = (torch.tensor(x).float().contiguous() for x in (expected.lse, expected.delta))
    grid = (triton.cdiv(seqlen, 32), 2)
    arguments = [q, k, v, dout, lse, delta, dq, dk, dv, *q.stride()[:3], SCALE, seqlen, 2]
    with amdgpu_sim.triton_device(target) as device:
        compiled = kernels.attention_backward[grid](
            *arguments, HEAD_DIM=case.head_dim, BLOCK_D=triton.next_power_of_2(case.head_dim), CAUSAL=case.causal,
            BLOCK_M=32, BLOCK_N=32, **options(case),
        )  # fmt: skip
    assert device.last_report is not None
    check_instructions(case, device.last_report)
    bounds = expected.backward_bounds(rounding(case.dtype, target))
    for result, wanted, bound in zip((dq, dk, dv), (expected.dq, expected.dk, expected.dv), bounds, strict=True):
        assert (np.abs(result.double().numpy() - wanted.swapaxes(1, 2)) <= bound).all()
    first = [x.clone() for x in (dq, dk, dv)]
    dq.zero_()
    assembly_door(target, compiled, grid, arguments)
    assert all(torch.equal(x, y) for x, y in zip((dq, dk, dv), first, strict=True))


@pytest.mark.parametrize("target", ["gfx942", "gfx1100"])
def test_waves_interleaved_by_seeds_agree(target: str) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 70, 1, 32).half() for _ in range(3))
    results = []
    for chosen in ({}, {"seed": 3, "lockstep": False}, {"seed": 4, "lockstep": False, "waves_per_batch": 4}):
        out, lse = torch.empty_like(q), torch.empty(1, 1, 70)
        with amdgpu_sim.triton_device(target, **chosen):
            kernels.attention_forward[(2, 1)](
                q, k, v, out, lse, *q.stride()[:3], 0.2, 70, 1, HEAD_DIM=32, BLOCK_D=32, CAUSAL=True,
                BLOCK_M=64, BLOCK_N=32,
            )  # fmt: skip
        results.append(out)
    assert all(torch.equal(results[0], other) for other in results[1:])
