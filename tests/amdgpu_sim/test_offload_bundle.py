"""Offload bundles made by hand after the documented layout."""

from __future__ import annotations

import ctypes
import struct
import zlib

import pytest
import zstandard

import amdgpu_sim
from amdgpu_sim.offload_bundle import choose, code_objects, read_bytes, read_memory

ENTRIES = {
    "host-x86_64-unknown-linux-gnu-": b"",
    "hipv4-amdgcn-amd-amdhsa--gfx90a:xnack+": b"retrying",
    "hipv4-amdgcn-amd-amdhsa--gfx90a:sramecc+:xnack-": b"plain",
    "hipv4-amdgcn-amd-amdhsa--gfx1201": b"other",
}
FOUND = {"gfx90a:xnack+": b"retrying", "gfx90a:sramecc+:xnack-": b"plain", "gfx1201": b"other"}


def bundle() -> bytes:
    header_size = 32 + sum(24 + len(name) for name in ENTRIES)
    header, body = b"__CLANG_OFFLOAD_BUNDLE__" + struct.pack("<Q", len(ENTRIES)), b""
    for name, data in ENTRIES.items():
        header += struct.pack("<QQQ", header_size + len(body), len(data), len(name)) + name.encode()
        body += data
    return header + body


def compressed(version: int, method: int, data: bytes) -> bytes:
    layout = "<II" if version == 2 else "<QQ"
    sizes = struct.pack(layout, 16 + struct.calcsize(layout) + len(data), len(bundle()))
    return b"CCOB" + struct.pack("<HH", version, method) + sizes + b"8bytehsh" + data


def test_entries_of_a_bundle() -> None:
    assert code_objects(read_bytes(bundle())) == FOUND


@pytest.mark.parametrize("version", [2, 3])
def test_compressed_bundles(version: int) -> None:
    for method, data in ((0, zlib.compress(bundle())), (1, zstandard.ZstdCompressor().compress(bundle()))):
        assert code_objects(read_bytes(compressed(version, method, data))) == FOUND


def test_bundle_in_memory_of_unknown_length() -> None:
    for image in (bundle(), compressed(3, 0, zlib.compress(bundle()))):
        held = ctypes.create_string_buffer(image, len(image))
        assert code_objects(read_memory(ctypes.addressof(held))) == FOUND


def test_choice_of_a_device() -> None:
    assert choose(FOUND, "gfx90a") == b"plain"
    assert choose(FOUND, "gfx1201") == b"other"
    assert choose(FOUND, "gfx942") is None
    assert choose({"": b"bare"}, "gfx942") == b"bare"


def test_elf_file_ends_after_its_section_headers() -> None:
    header = bytearray(64)
    header[:4] = b"\x7fELF"
    struct.pack_into("<Q", header, 40, 100)
    struct.pack_into("<HH", header, 58, 64, 3)
    image = bytes(header) + bytes(range(228))
    assert code_objects(read_bytes(image + b"what follows")) == {"": image}


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"nothing known", "not an offload bundle"),
        (bundle()[:60], "the image ends"),
        (compressed(1, 0, b""), "version 1"),
        (compressed(3, 7, b""), "method 7"),
    ],
)
def test_unknown_images_are_refused(image: bytes, message: str) -> None:
    with pytest.raises(amdgpu_sim.AssemblyError, match=message):
        code_objects(read_bytes(image))
