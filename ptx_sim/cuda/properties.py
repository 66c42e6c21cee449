"""What the stand-in for the CUDA runtime says of a device: attributes, and some fields of cudaDeviceProp."""

from __future__ import annotations

import struct

from ptx_sim.targets import Target

_PROPERTIES_BYTES = 1008  # of cudaDeviceProp


def attributes(target: Target) -> dict[int, int]:
    """``cudaDeviceAttr`` to value."""
    major, minor = target.capability
    return {
        1: 1024,  # threads of a block, then along each axis, then blocks along each axis
        2: 1024, 3: 1024, 4: 64, 5: 2**31 - 1, 6: 65535, 7: 65535,
        8: 48 << 10,  # shared memory of a block that did not ask for more
        10: 32,  # threads of a warp
        12: 65536,  # registers of a block
        13: 1_400_000,  # clock in kHz
        16: target.processors,
        38: 40 << 20,  # second-level cache
        39: target.threads_per_processor,
        41: 1,  # unified addressing
        75: major,
        76: minor,
        81: target.shared_bytes_per_processor,
        82: 65536,  # registers of a processor
        97: target.shared_bytes,
        106: target.threads_per_processor // 64,  # blocks of a processor
        111: 1 << 10,  # shared memory that the system takes of each block
    }  # fmt: skip


def packed_properties(target: Target) -> bytes:
    """Name, shared memory, registers and compute capability of cudaDeviceProp as CUDA 13 lays it out; the rest is 0."""
    values = attributes(target)
    properties = bytearray(_PROPERTIES_BYTES)
    struct.pack_into("256s", properties, 0, f"simulated {target.name}".encode())
    struct.pack_into("<Qii", properties, 296, values[8], values[12], values[10])
    struct.pack_into("<ii", properties, 360, *target.capability)
    return bytes(properties)
