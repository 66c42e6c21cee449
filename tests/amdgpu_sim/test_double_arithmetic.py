"""float64 instructions and the float mode, against decimal arithmetic and numpy."""

from __future__ import annotations

import decimal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from assembler import assemble, compute

import amdgpu_sim

Array = np.ndarray[Any, Any]


def doubles(seed: int, lanes: int = 64) -> Array:
    random = np.random.default_rng(seed)
    return random.standard_normal(lanes) * 2.0 ** random.integers(-40, 40, lanes)


def compute64(code: str, *inputs: Array) -> Array:
    """``code`` with float64 ``inputs`` in v[10:11], v[12:13], v[14:15]; the result is v[20:21]."""
    words = [np.ascontiguousarray(x.view(np.uint32)[half::2]) for x in inputs for half in (0, 1)]
    low, high = compute("gfx942", code, *words, outputs=2)
    return np.stack([low, high], axis=1).reshape(-1).view(np.float64)


def exact_fma(a: Array, b: Array, c: Array) -> list[float]:
    with decimal.localcontext(decimal.Context(prec=3000, Emax=99999, Emin=-99999)):
        exact = [[decimal.Decimal(float(value)) for value in values] for values in (a, b, c)]
        return [float(x * y + z) for x, y, z in zip(*exact, strict=True)]


@pytest.mark.parametrize(
    "code",
    [
        "v_fma_f64 v[20:21], v[10:11], v[12:13], v[14:15]",
        "v_mov_b64_e32 v[20:21], v[14:15]\nv_fmac_f64_e32 v[20:21], v[10:11], v[12:13]",
    ],
)
def test_fused_multiply_add_rounds_once(code: str) -> None:
    a, b, c = doubles(0), doubles(1), doubles(2)
    c[:32] = -(a[:32] * b[:32])  # what is left is the product's rounding error
    a[32:35], b[32:35], c[32:35] = [1e-300, 1e200, 3.0], [1e-10, -1e200, 0.0], [1e-310, 1.0, -0.0]
    result = compute64(code, a, b, c)
    assert result.tolist() == exact_fma(a, b, c)
    assert (result[:32] != 0).any()


def test_fused_multiply_add_of_special_values() -> None:
    a, b, c = doubles(3), doubles(4), doubles(5)
    a[:5], b[:5], c[:5] = [np.inf, np.inf, np.nan, -0.0, 1.0], [2, 0, 1, 1, 1], [1, 1, 1, -0.0, -1.0]
    with np.errstate(invalid="ignore"):
        expected = a[:5] * b[:5] + c[:5]
    result = compute64("v_fma_f64 v[20:21], v[10:11], v[12:13], v[14:15]", a, b, c)[:5]
    np.testing.assert_array_equal(result, expected)
    assert np.signbit(result[3:5]).tolist() == [True, False]


@pytest.mark.parametrize(("name", "function"), [("floor", np.floor), ("ceil", np.ceil), ("trunc", np.trunc),
                                                ("rndne", np.round)])  # fmt: skip
def test_rounding(name: str, function: Callable[[Array], Array]) -> None:
    x = np.concatenate([np.arange(-8, 8) / 2, doubles(6, 48)])
    np.testing.assert_array_equal(compute64(f"v_{name}_f64_e32 v[20:21], v[10:11]", x), function(x))


def test_scale_by_a_power_of_two() -> None:
    x, power = doubles(7), np.arange(-32, 32, dtype=np.int32)
    words = [np.ascontiguousarray(x.view(np.uint32)[half::2]) for half in (0, 1)]
    low, high = compute("gfx942", "v_ldexp_f64 v[20:21], v[10:11], v12", *words, power.view(np.uint32), outputs=2)
    result = np.stack([low, high], axis=1).reshape(-1).view(np.float64)
    np.testing.assert_array_equal(result, x * 2.0**power)


def test_division_sequence() -> None:
    """The sequence that compilers emit for IEEE division, on hard operands; correctly rounded in the end."""
    numerator, denominator = doubles(8), doubles(9)
    numerator[:6] = [1e-308, 3e307, 1e200, 1e-200, 5e-320, 7.0]
    denominator[:6] = [3e307, 1e-307, 1e-200, 1e200, 3.0, 1e-320]
    denominator[6:9] = [0.0, np.inf, np.nan]
    code = """
    v_div_scale_f64 v[2:3], s[10:11], v[12:13], v[12:13], v[10:11]
    v_rcp_f64_e32 v[4:5], v[2:3]
    v_fma_f64 v[6:7], -v[2:3], v[4:5], 1.0
    v_fmac_f64_e32 v[4:5], v[4:5], v[6:7]
    v_fma_f64 v[6:7], -v[2:3], v[4:5], 1.0
    v_fmac_f64_e32 v[4:5], v[4:5], v[6:7]
    v_div_scale_f64 v[6:7], vcc, v[10:11], v[12:13], v[10:11]
    v_mul_f64 v[8:9], v[6:7], v[4:5]
    v_fma_f64 v[2:3], -v[2:3], v[8:9], v[6:7]
    s_nop 1
    v_div_fmas_f64 v[2:3], v[2:3], v[4:5], v[8:9]
    v_div_fixup_f64 v[20:21], v[2:3], v[12:13], v[10:11]"""
    with np.errstate(all="ignore"):
        expected = numerator / denominator
    np.testing.assert_allclose(compute64(code, numerator, denominator), expected, rtol=2.0**-52, atol=5e-324)


SWITCH_ON = {"gfx942": "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 4, 2), 3", "gfx1100": "s_denorm_mode 15"}
SWITCH_OFF = {"gfx942": "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 4, 2), 0", "gfx1100": "s_denorm_mode 12"}


@pytest.mark.parametrize("target", ["gfx942", "gfx1100"])
def test_denormals_are_switched_where_the_code_says(target: str) -> None:
    lanes = amdgpu_sim.TARGETS[target].wave_size
    tiny = np.full(lanes, 1e-39, np.float32)
    add = "v_add_f32_e32 v{0}, v10, v10"
    code = "\n".join([add.format(20), SWITCH_OFF[target], add.format(21), SWITCH_ON[target], add.format(22)])
    kept, flushed, again = compute(target, code, tiny, outputs=3).view(np.float32)
    np.testing.assert_array_equal(kept, tiny + tiny)
    np.testing.assert_array_equal(again, tiny + tiny)
    assert not flushed.any()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("s_setreg_imm32_b32 hwreg(HW_REG_MODE, 0, 2), 1", "rounding to nearest"),
        ("s_setreg_imm32_b32 hwreg(HW_REG_MODE, 6, 2), 0", "rounding to nearest"),
        ("s_denorm_mode 13", "rounding to nearest"),
        ("s_round_mode 1", "rounding to nearest"),
        ("s_setreg_imm32_b32 hwreg(HW_REG_MODE, 4, 8), 0", "bit 23"),
        ("s_denorm_mode 12\ns_cbranch_scc0 .Lend\n.Lend:", "a branch while"),
        ("s_denorm_mode 12\n.Lloop:\ns_denorm_mode 15\ns_cbranch_scc0 .Lloop", "a branch may come here"),
    ],
)
def test_modes_that_are_not_modelled_are_refused(body: str, message: str) -> None:
    with pytest.raises(amdgpu_sim.UnsupportedInstructionError, match=message):
        assemble("gfx942", body)
