"""Vector float64 arithmetic beyond sums and products: fused multiply-add, exponents, rounding."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from amdgpu_sim.instructions.vector import vector
from amdgpu_sim.waves import Array

_CATEGORY = "valu_double"


def fma64(a: Array, b: Array, c: Array) -> Array:
    """a * b + c of float64, rounded once.

    Computed in exact rationals, once for every different triple: lanes mostly hold the same values.
    """
    a, b, c = (np.array(x) for x in np.broadcast_arrays(a, b, c))
    rounded_twice = a * b + c
    triples, place = np.unique(np.stack([a, b, c]).reshape(3, -1).view(np.uint64), axis=1, return_inverse=True)
    results = np.empty(triples.shape[1])
    for column in range(triples.shape[1]):
        x, y, z = (float(value) for value in triples[:, column].copy().view(np.float64))
        results[column] = _exact(x, y, z) if np.isfinite([x, y, z]).all() else np.nan
    once = results[place].reshape(a.shape)
    # infinities, NaN and the sign of zero: no digits are lost there, and numpy's rules are the hardware's
    plain = ~(np.isfinite(a) & np.isfinite(b) & np.isfinite(c)) | (once == 0)
    return np.where(plain, rounded_twice, once)


def _exact(x: float, y: float, z: float) -> float:
    total = Fraction(x) * Fraction(y) + Fraction(z)
    try:
        return float(total)
    except OverflowError:
        return float(np.inf if total > 0 else -np.inf)


vector("v_fma_f64", "f64", "f64 f64 f64", fma64, _CATEGORY)
vector("v_fmac_f64", "f64", "f64 f64 dst", fma64, _CATEGORY)
vector("v_ldexp_f64", "f64", "f64 i32", np.ldexp, _CATEGORY)
vector("v_floor_f64", "f64", "f64", np.floor, _CATEGORY)
vector("v_ceil_f64", "f64", "f64", np.ceil, _CATEGORY)
vector("v_trunc_f64", "f64", "f64", np.trunc, _CATEGORY)
vector("v_rndne_f64", "f64", "f64", np.rint, _CATEGORY)
