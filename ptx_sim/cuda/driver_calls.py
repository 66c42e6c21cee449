"""The driver's functions that programs look up through the CUDA runtime."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from ptx_sim.cuda.runtime import CudaRuntime, implements
from ptx_sim.tensor_maps import TensorMap
from simulated_device.calls import as_text, write_int, write_word

_FOUND, _NOT_FOUND = 0, 1
_SUCCESS, _INVALID_VALUE = 0, 1
# CUtensorMapDataType to bytes, for the types that take part in matrix products
_ELEMENT_BYTES = {0: 1, 1: 2, 2: 4, 6: 2, 7: 4, 9: 2}
_FLOAT32 = 7
# CUtensorMapSwizzle to bytes
_SWIZZLES = (0, 32, 64, 128)
_UNIT_STRIDES = 1
_Words = ctypes.POINTER(ctypes.c_uint64)
_Halves = ctypes.POINTER(ctypes.c_uint32)


def _encode_tiled(
    target: int, kind: int, rank: int, address: int | None, sizes: Any, strides: Any, box: Any, steps: Any,
    interleave: int, swizzle: int, promotion: int, fill: int,
) -> int:  # fmt: skip
    """``cuTensorMapEncodeTiled``, without interleaving, other steps than 1 and other fills than zeros."""
    if not 1 <= rank <= 5 or kind not in _ELEMENT_BYTES or interleave or fill or target % 64:
        return _INVALID_VALUE
    if any(steps[n] != _UNIT_STRIDES for n in range(rank)) or not 0 <= swizzle < len(_SWIZZLES):
        return _INVALID_VALUE
    try:
        tensor = TensorMap(
            address or 0,
            _ELEMENT_BYTES[kind],
            [sizes[n] for n in range(rank)],
            [strides[n] for n in range(rank - 1)],
            [box[n] for n in range(rank)],
            _SWIZZLES[swizzle],
            kind == _FLOAT32,
        )
    except ValueError:
        return _INVALID_VALUE
    ctypes.memmove(target, tensor.pack(), 128)
    return _SUCCESS


_ENTRY_POINTS: dict[str, Callable[..., int]] = {
    "cuTensorMapEncodeTiled": ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_size_t, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p, _Words, _Words, _Halves,
        _Halves, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int,
    )(_encode_tiled),
}  # fmt: skip


@implements("cudaGetDriverEntryPointByVersion")
def _get_driver_entry_point(
    runtime: CudaRuntime, name: int, pointer: int, version: int, flags: int, result: int
) -> None:
    entry = _ENTRY_POINTS.get(as_text(name))
    address = 0 if entry is None else ctypes.cast(entry, ctypes.c_void_p).value or 0  # type: ignore[arg-type]
    write_word(pointer, address)
    if result:
        write_int(result, _FOUND if address else _NOT_FOUND)


@implements("cudaGetDriverEntryPoint")
def _get_newest_driver_entry_point(runtime: CudaRuntime, name: int, pointer: int, flags: int, result: int) -> None:
    _get_driver_entry_point(runtime, name, pointer, 0, flags, result)
