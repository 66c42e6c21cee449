"""Code objects: the same kernels as assembly text and as ELF files do the same."""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

import amdgpu_sim
from amdgpu_sim.disassembly import find_objdump

pytestmark = pytest.mark.hip
TARGETS = list(amdgpu_sim.TARGETS)
Array = np.ndarray[Any, Any]
Build = Callable[..., Path]


@triton.jit
def attend(q, k, v, out, count, scale, D: tl.constexpr, N: tl.constexpr):  # noqa: ANN001, ANN201
    rows, columns, parts = tl.arange(0, 32), tl.arange(0, N), tl.arange(0, D)
    query = tl.load(q + rows[:, None] * D + parts[None, :])
    total = tl.zeros([32, D], tl.float32)
    weight = tl.zeros([32], tl.float32)
    for begin in range(0, count, N):
        inside = begin + columns < count
        place = (begin + columns)[:, None] * D + parts[None, :]
        key = tl.load(k + place, mask=inside[:, None], other=0.0)
        p = tl.where(inside[None, :], tl.exp2(tl.dot(query, key.T) * scale), 0.0)
        weight += tl.sum(p, 1)
        total += tl.dot(p.to(tl.float16), tl.load(v + place, mask=inside[:, None], other=0.0))
    tl.store(out + rows[:, None] * D + parts[None, :], total / weight[:, None])


def plain(program: amdgpu_sim.Program) -> list[list[str]]:
    """The instructions, in one spelling.

    Without padding, branches by the number of their target, the low half of a register as the register, and
    without ``op_sel`` where an operand names its half.
    """
    lines, place = [line for line in program.kernel.lines if line.mnemonic != "s_nop"], [0]
    for line in program.kernel.lines:
        place.append(place[-1] + (line.mnemonic != "s_nop"))
    labels = {name: f"to {place[target]}" for name, target in program.kernel.labels.items()}

    def spell(part: str) -> str:
        part = "0" if part == "null" else labels.get(part, re.sub(r"lit\((\w+)\)|(v\d+)\.l$", r"\1\2", part))
        return str(int(part, 0) & 0xFFFF) if re.fullmatch(r"-?(0x[0-9a-f]+|\d+)", part) else part

    return [
        [line.mnemonic, *map(spell, line.operands)]
        + [
            f"{key}:{value}"
            for key, value in sorted(line.modifiers.items())
            if key != "op_sel" or ".h" not in line.text
        ]
        for line in lines
    ]


def same_code(text: amdgpu_sim.Program, binary: amdgpu_sim.Program) -> None:
    """Both have the same instructions, arguments and entry state."""
    for one, other in zip(plain(text), plain(binary), strict=True):
        assert one == other
    assert text.kernel.arguments == binary.kernel.arguments
    assert text.kernel.kernarg_size == binary.kernel.kernarg_size
    stated, found = text.kernel.directives, binary.kernel.directives
    shared = stated.keys() & found.keys()
    assert {name: stated[name] for name in shared} == {name: found[name] for name in shared}
    assert {"user_sgpr_count", "user_sgpr_kernarg_segment_ptr", "float_denorm_mode_32"} <= shared


@pytest.mark.parametrize("target", TARGETS)
def test_triton_kernel_as_text_and_as_code_object(target: str, toolchain: Path) -> None:
    q, k, v = (torch.randn(n, 64, dtype=torch.float16) for n in (32, 100, 100))
    out = torch.zeros(32, 64)
    with amdgpu_sim.triton_device(target):
        compiled = attend[(1,)](q, k, v, out, 100, 0.18, D=64, N=32)
    text = amdgpu_sim.Program(compiled.asm["amdgcn"], "attend")
    binary = amdgpu_sim.CodeObject(compiled.asm["hsaco"]).program("attend")
    same_code(text, binary)
    spare = len([a for a in text.kernel.arguments if not a.kind.startswith("hidden_")]) - 6
    outs, reports = [], []
    for program in (text, binary):
        outs.append(np.zeros((32, 64), np.float32))
        arguments = [q.numpy(), k.numpy(), v.numpy(), outs[-1], 100, 0.18, *[None] * spare]
        items = 4 * program.target.wave_size
        reports.append(program.launch((1,), (items,), arguments, lds_bytes=compiled.metadata.shared))
    assert np.array_equal(outs[0], outs[1])
    assert np.array_equal(outs[0], out.numpy())
    assert reports[0].by_category() == reports[1].by_category()


@pytest.mark.parametrize(
    ("source", "target"),
    [
        *(("matrix_product.hip", target) for target in TARGETS),
        ("reduction.hip", "gfx942"),
        ("reduction.hip", "gfx1201"),
    ],
)
def test_hip_kernels_as_text_and_as_code_object(source: str, target: str, build: Build) -> None:
    text = build(source, "-S", "--cuda-device-only", targets=(target,)).read_text()
    image = amdgpu_sim.CodeObject(
        build(source, "--cuda-device-only", "--no-gpu-bundle-output", targets=(target,)),
    )
    assert image.target.name == target
    assert image.kernels
    for name in image.kernels:
        same_code(amdgpu_sim.Program(text, name), image.program(name))


def test_source_lines_come_from_the_debug_information(build: Build) -> None:
    image = amdgpu_sim.CodeObject(
        build("mistakes.hip", "--cuda-device-only", "--no-gpu-bundle-output", targets=("gfx942",)).read_bytes()
    )
    lines = image.program("_Z4copyPKiPii").kernel.lines
    stores = [line for line in lines if line.mnemonic.startswith("global_store")]
    assert [line.source for line in stores] == ["mistakes.hip:6"]
    listing = image.disassembly("_Z4copyPKiPii").splitlines()
    assert stores[0].mnemonic in listing[stores[0].number - 1]


def test_what_cannot_be_loaded_says_why(
    build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toolchain: Path
) -> None:
    path = build("mistakes.hip", "--cuda-device-only", "--no-gpu-bundle-output", targets=("gfx942",))
    image = amdgpu_sim.CodeObject(path)
    with pytest.raises(amdgpu_sim.AssemblyError, match=r"'nothing' is not among.*copy"):
        image.program("nothing")
    with pytest.raises(amdgpu_sim.AssemblyError, match="name exactly one"):
        image.program()
    with pytest.raises(amdgpu_sim.AssemblyError, match="not an ELF file"):
        amdgpu_sim.CodeObject(b"no code object")
    host = build("mistakes.hip", "-c", "--cuda-host-only", targets=("gfx942",))
    with pytest.raises(amdgpu_sim.AssemblyError, match="not a linked AMDGPU code object"):
        amdgpu_sim.CodeObject(host)
    with pytest.raises(amdgpu_sim.AssemblyError, match=r"objdump: .*not an executable"):
        amdgpu_sim.CodeObject(path, objdump=tmp_path / "objdump").disassembly("_Z4copyPKiPii")
    with pytest.raises(amdgpu_sim.AssemblyError, match="false failed"):
        amdgpu_sim.CodeObject(path, objdump="false").disassembly("_Z4copyPKiPii")
    monkeypatch.delenv("HIP_TOOLCHAIN")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("ROCM_PATH", str(tmp_path))
    with pytest.raises(amdgpu_sim.AssemblyError, match="needs llvm-objdump"):
        find_objdump()


def test_compressed_offload_bundle(build: Build) -> None:
    from amdgpu_sim.offload_bundle import choose, code_objects, read_bytes

    flags = ("--cuda-device-only", "--gpu-bundle-output")
    unpacked = build("reduction.hip", *flags, targets=("gfx942", "gfx1201")).read_bytes()
    packed = build("reduction.hip", *flags, "--offload-compress", targets=("gfx942", "gfx1201")).read_bytes()
    assert packed.startswith(b"CCOB")
    for target in ("gfx942", "gfx1201"):
        images = []
        for bundle in (unpacked, packed):
            data = choose(code_objects(read_bytes(bundle)), target)
            assert data is not None
            images.append(amdgpu_sim.CodeObject(data))
        assert images[1].target.name == target
        for name in images[0].kernels:
            same_code(images[0].program(name), images[1].program(name))
