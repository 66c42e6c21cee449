"""The architectural state of a bundle of waves that execute the same instruction together.

Registers are kept as ``(register, wave, lane)`` (vector) and ``(register, wave, 1)`` (scalar) arrays, so
that one numpy operation executes an instruction for every lane of every wave of the bundle.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

# a numpy array; its stubs type most operations on arrays of unknown dtype as Any
Array: TypeAlias = Any

VCC, M0, NULL, EXEC, SCC = 106, 124, 125, 126, 128
SCALARS = 129
SCALAR_SHIFT = 512
POISON = 0xFFC0DEAD


class Waves:
    """``count`` waves at the same program position.

    ``v``/``s`` hold the registers, ``f``/``i`` and ``sf``/``si`` are the same memory as float32 and int32.
    ``active`` is EXEC as ``(wave, lane)`` booleans. ``undefined`` has one bit per register that holds a value
    nothing wrote in at least one lane; ``v_undefined``/``s_undefined`` say which lanes (row SCC is the
    flag's). ``number`` numbers the waves of the launch; ``lds_stores`` counts each wave's stores to LDS, those
    of ``ds_`` instructions and those of loads straight to LDS.
    """

    def __init__(self, vectors: int, wave_size: int, count: int, scratch_bytes: int) -> None:
        """Registers and scratch are poisoned and undefined; ids are zero."""
        self.vectors, self.wave_size, self.count = vectors, wave_size, count
        self.v: Array = np.full((vectors, count, wave_size), POISON, np.uint32)
        self.s: Array = np.full((SCALARS, count, 1), POISON, np.uint32)
        self.v_undefined: Array = np.ones((vectors, count, wave_size), bool)
        self.s_undefined: Array = np.ones((SCALARS, count, 1), bool)
        self.scratch: Array = np.full((count, wave_size, scratch_bytes), 0xAD, np.uint8)
        self.scratch_undefined: Array = np.ones((count, wave_size, scratch_bytes), bool)
        self.scc: Array = np.zeros((count, 1), bool)
        self.undefined = ((1 << vectors) - 1) | (((1 << SCALARS) - 1) << SCALAR_SHIFT)
        self.group: Array = np.zeros(count, np.int64)
        self.wave: Array = np.zeros(count, np.int64)
        self.lds_base: Array = np.zeros((count, 1), np.int64)
        self.writer: Array = np.ones((count, 1), np.int32)
        self.number: Array = np.arange(count)
        self.lds_stores: Array = np.zeros((count, 2), np.int64)
        self.position = 0
        self.wait_state = 0
        self.machine: Any = None
        self._views()

    def _views(self) -> None:
        self.f, self.i = self.v.view(np.float32), self.v.view(np.int32)
        self.sf, self.si = self.s.view(np.float32), self.s.view(np.int32)

    _PER_WAVE_AXIS_1 = ("v", "s", "v_undefined", "s_undefined")
    _PER_WAVE_AXIS_0 = (
        "scratch", "scratch_undefined", "scc", "group", "wave", "lds_base", "writer", "number", "lds_stores",
    )  # fmt: skip

    def take(self, slots: Array) -> Waves:
        """A new bundle with copies of the given waves."""
        part = Waves.__new__(Waves)
        part.__dict__.update(self.__dict__)
        for name in self._PER_WAVE_AXIS_1:
            setattr(part, name, np.ascontiguousarray(getattr(self, name)[:, slots]))
        for name in self._PER_WAVE_AXIS_0:
            setattr(part, name, np.ascontiguousarray(getattr(self, name)[slots]))
        part.count = len(slots)
        part._views()
        part.refresh_exec()
        return part

    @classmethod
    def join(cls, parts: list[Waves]) -> Waves:
        """One bundle from several at the same position and wait state."""
        if len(parts) == 1:
            return parts[0]
        whole = cls.__new__(cls)
        whole.__dict__.update(parts[0].__dict__)
        for name in cls._PER_WAVE_AXIS_1:
            setattr(whole, name, np.concatenate([getattr(part, name) for part in parts], axis=1))
        for name in cls._PER_WAVE_AXIS_0:
            setattr(whole, name, np.concatenate([getattr(part, name) for part in parts]))
        whole.count = sum(part.count for part in parts)
        for part in parts:
            whole.undefined |= part.undefined
        whole._views()
        whole.refresh_exec()
        return whole

    def active_shape(self) -> tuple[int, int]:
        """(waves, lanes)."""
        return self.count, self.wave_size

    def refresh_exec(self) -> None:
        """Recompute ``active`` after EXEC was written."""
        self.active: Array = self.lane_mask(EXEC)
        self.full = bool(self.active.all())

    def lane_mask(self, register: int) -> Array:
        """The scalar register (pair in wave64) as ``(wave, lane)`` booleans."""
        words = self.wave_size // 32
        packed = np.ascontiguousarray(self.s[register : register + words, :, 0].T)
        return np.unpackbits(packed.view(np.uint8), axis=1, bitorder="little").view(bool)

    def set_lane_mask(self, register: int, mask: Array) -> None:
        """Write booleans ``(wave, lane)`` into a scalar register (pair); inactive lanes become 0."""
        words = self.wave_size // 32
        packed = np.packbits(mask & self.active, axis=1, bitorder="little").view(np.uint32)
        if register != NULL:
            self.s[register : register + words, :, 0] = packed.T
        if register == EXEC:
            self.refresh_exec()

    def set_vector(self, register: int, value: Array) -> None:
        """Write the active lanes of a vector register."""
        if self.full:
            self.v[register] = value
        else:
            np.copyto(self.v[register], value, where=self.active)

    def set_vector64(self, register: int, value: Array) -> None:
        """Write the active lanes of a vector register pair."""
        self.set_vector(register, value.astype(np.uint32))
        self.set_vector(register + 1, (value >> np.uint64(32)).astype(np.uint32))

    def define_vector(self, register: int, shadow: Array) -> None:
        """Record which lanes of a vector register are undefined."""
        self.v_undefined[register] = shadow
        self._record(1 << register, bool(self.v_undefined[register].any()))

    def define_scalar(self, register: int, shadow: Array) -> None:
        """Record which waves have the scalar register undefined."""
        if register != NULL:
            self.s_undefined[register] = shadow
            self._record(1 << (register + SCALAR_SHIFT), bool(self.s_undefined[register].any()))

    def _record(self, bit: int, undefined: bool) -> None:
        self.undefined = self.undefined | bit if undefined else self.undefined & ~bit

    def set_scalar(self, register: int, value: Array) -> None:
        """Write a scalar register; writing EXEC refreshes ``active``."""
        if register == NULL:
            return
        self.s[register] = value
        if register >= EXEC:
            self.refresh_exec()

    def set_scalar64(self, register: int, value: Array) -> None:
        """Write a scalar register pair."""
        if register == NULL:
            return
        self.s[register] = value.astype(np.uint32)
        self.s[register + 1] = (value >> np.uint64(32)).astype(np.uint32)
        if register == EXEC:
            self.refresh_exec()
