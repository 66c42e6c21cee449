"""Which PTX of a fat binary is taken; the entries are written by hand."""

from __future__ import annotations

import struct

import pytest

import ptx_sim
from ptx_sim.cuda.fat_binary import choose
from ptx_sim.targets import find_target

PTX, CUBIN = 1, 2


def _entry(kind: int, arch: int, text: bytes, flags: int = 0x11) -> bytes:
    header = struct.pack("<HHIQIIII", kind, 0x101, 80, len(text), 0, 0, 0, arch)
    return (header + struct.pack("<QQQQ", 0, flags, 0, 0)).ljust(80, b"\0") + text


def test_the_newest_ptx_that_the_target_runs() -> None:
    entries = _entry(PTX, 80, b"eighty\0\0") + _entry(CUBIN, 86, b"binary") + _entry(PTX, 89, b"eighty-nine\0")
    assert choose(entries, find_target("sm_80")) == "eighty"
    assert choose(entries, find_target("sm_86")) == "eighty"
    assert choose(entries, find_target("sm_90")) == "eighty-nine"
    assert choose(_entry(PTX, 90, b"ninety"), find_target("sm_80")) is None


def test_what_cannot_be_unpacked_says_what_helps() -> None:
    with pytest.raises(ptx_sim.PtxError, match="--no-compress"):
        choose(_entry(PTX, 80, b"x", 0x2011), find_target("sm_80"))
