"""What the load, store and atomic instructions of all memories share: access widths, register transfer,
counters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amdgpu_sim.decoding import Decoding, Span
from amdgpu_sim.errors import UninitialisedReadError
from amdgpu_sim.waves import Array, Waves

CACHE_HINTS = ("sc0", "sc1", "nt", "glc", "slc", "dlc", "scope", "th")
_BYTES = {
    "dword": 4, "dwordx2": 8, "dwordx3": 12, "dwordx4": 16, "b8": 1, "b16": 2, "b32": 4, "b64": 8, "b96": 12,
    "b128": 16, "byte": 1, "short": 2, "ubyte": 1, "sbyte": 1, "ushort": 2, "sshort": 2, "u8": 1, "i8": 1, "u16": 2,
    "i16": 2,
}  # fmt: skip
_WIDE = ("dword", "dwordx2", "dwordx3", "dwordx4", "b32", "b64", "b96", "b128")
# the ends of the mnemonics of global, buffer, flat and scratch instructions: gfx9's names, then those of gfx11
LOAD_NAMES = (
    *_WIDE, "ubyte", "sbyte", "ushort", "sshort", "ubyte_d16", "ubyte_d16_hi", "sbyte_d16", "sbyte_d16_hi",
    "short_d16", "short_d16_hi", "u8", "i8", "u16", "i16", "d16_u8", "d16_hi_u8", "d16_i8", "d16_hi_i8", "d16_b16",
    "d16_hi_b16",
)  # fmt: skip
STORE_NAMES = (*_WIDE, "byte", "short", "byte_d16_hi", "short_d16_hi", "b8", "b16", "d16_hi_b8", "d16_hi_b16")


@dataclass(frozen=True)
class Access:
    """Width in bytes, sign extension, and the 16-bit half it goes to or comes from (None: the whole
    register)."""

    size: int
    signed: bool
    half: int | None

    @property
    def registers(self) -> int:
        """Vector registers of the data."""
        return -(-self.size // 4)


def parse_access(name: str) -> Access:
    """Read the width part of a mnemonic ("dwordx4", "ubyte_d16_hi", "d16_hi_b16"...)."""
    parts = name.split("_")
    (core,) = (part for part in parts if part not in ("d16", "hi"))
    half = (1 if "hi" in parts else 0) if "d16" in parts else None
    return Access(_BYTES[core], core.startswith(("s", "i")) and core != "short", half)


def begin_access(d: Decoding, category: str, size: int) -> None:
    """Read the operands of an access of ``size`` bytes a lane; cache hints change no result."""
    d.parse_operands()
    d.ignore(*CACHE_HINTS)
    d.instruction.category, d.instruction.bytes_per_lane = category, size


def data_registers(d: Decoding, number: int, count: int, what: str = "stored data") -> Span:
    """The ``count`` vector registers of operand ``number``, whose lanes the instruction reads itself."""
    span = d.span(number, count)
    if span is None or span.kind != "v":
        raise d.unsupported(f"{what} must be vector registers")
    d.instruction.wave_reads.append(span)
    return span


def write_loaded(w: Waves, register: int, access: Access, where: Array, data: Array) -> None:
    """Put loaded bytes (n, size) of the lanes ``where`` into registers."""
    if access.size < 4:
        dtype = {(1, False): np.uint8, (1, True): np.int8, (2, False): np.uint16, (2, True): np.int16}
        word = data.view(dtype[access.size, access.signed])[:, 0].astype(np.int32).view(np.uint32)
        if access.half is not None:
            old = w.v[register][where]
            shift, keep = np.uint32(16 * access.half), np.uint32(0xFFFF if access.half else 0xFFFF0000)
            word = (old & keep) | ((word & np.uint32(0xFFFF)) << shift)
        w.v[register][where] = word
        return
    words = data.view(np.uint32)
    if where.all():
        shape = where.shape
        for column in range(words.shape[1]):
            w.v[register + column] = words[:, column].reshape(shape)
    else:
        for column in range(words.shape[1]):
            w.v[register + column][where] = words[:, column]


def read_stored(w: Waves, register: int, access: Access, where: Array) -> Array:
    """Bytes (n, size) to store from the lanes ``where``."""
    words = np.stack([w.v[register + column][where] for column in range(access.registers)], axis=1)
    if access.half == 1:
        words = words >> np.uint32(16)
    return words.view(np.uint8)[:, : access.size]


def undefined_rows(w: Waves, register: int, count: int, where: Array) -> Array | None:
    """(lanes ``where``, ``count``): which registers are undefined in which lane; None if none is."""
    if not w.undefined >> register & ((1 << count) - 1):
        return None
    return w.v_undefined[register : register + count][:, where].T


def define_loaded(w: Waves, register: int, count: int, where: Array, undefined: Array | None) -> None:
    """Record definedness of loaded registers; ``undefined`` as from :func:`undefined_rows`."""
    if undefined is None and not w.undefined >> register & ((1 << count) - 1):
        return
    for number in range(count):
        shadow = w.v_undefined[register + number].copy()
        shadow[where] = False if undefined is None else undefined[:, number]
        w.define_vector(register + number, shadow)


def require_defined(w: Waves, register: int, count: int, where: Array, what: str) -> None:
    """Raise UninitialisedReadError if one of ``count`` registers is undefined in a lane of ``where``.

    Lanes that a buffer's range check drops may hold anything: that is how compilers predicate buffer stores.
    """
    undefined = undefined_rows(w, register, count, where)
    if undefined is not None and undefined.any():
        slot, lane = (int(x[undefined.any(1).argmax()]) for x in np.nonzero(where))
        raise UninitialisedReadError(f"{what} (register v{register}) was never written", slot, lane)


def _register(d: Decoding, counters: tuple[str, ...]) -> None:
    d.instruction.counters = counters
    for span in d.instruction.writes:
        d.instruction.pending |= span.bits


def count_lds(d: Decoding) -> None:
    """The instruction is an LDS operation for the wait counters; call after the destinations are known."""
    _register(d, ("ds",) if d.target.split_counters else ("lgkm",))


def count_lds_store(d: Decoding) -> None:
    """The instruction is an LDS operation that stores."""
    count_lds(d)
    d.instruction.lds_store = 0


def count_load(d: Decoding) -> None:
    """The instruction is a vector memory load or returning atomic."""
    _register(d, ("load",))


def count_store(d: Decoding) -> None:
    """The instruction is a vector memory store or an atomic without result."""
    _register(d, ("load",) if d.target.stores_share_load_counter else ("store",))


def count_flat_load(d: Decoding) -> None:
    """The instruction is a flat load or returning flat atomic: it may read either memory."""
    _register(d, ("load", "ds" if d.target.split_counters else "lgkm"))


def count_flat_store(d: Decoding) -> None:
    """The instruction is a flat store or a flat atomic without result."""
    store = "load" if d.target.stores_share_load_counter else "store"
    _register(d, (store, "ds" if d.target.split_counters else "lgkm"))


def count_scalar_load(d: Decoding) -> None:
    """The instruction is a scalar load; these complete in any order."""
    _register(d, ("km",) if d.target.split_counters else ("smem",))
