"""Every scalar instruction against Python integers and float32 scalars."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from assembler import compute

import amdgpu_sim

M32, M64 = 2**32 - 1, 2**64 - 1
PAIRS32 = [(5, 3), (0x80000000, 0x80000000), (M32, 1), (0x12345678, 0x00080004), (0, 31), (0x7FFFFFFF, 0xFFFF8001)]
PAIRS64 = [(5, 3), (1 << 63, 1 << 63), (M64, 1), (0x123456789ABCDEF0, 0x00000F0F00FF00FF), (0, 31), (1 << 40, 63)]
Number = Callable[..., Any]


def signed(x: int, bits: int = 32) -> int:
    return x - (1 << bits) if x >> (bits - 1) & 1 else x


def execute(target: str, code: str, a: int, b: int, c: int = 0, flag: int = 0) -> tuple[int, int, int, int]:
    """a in s[10:11], b in s[12:13], c in s[14:15], SCC set to flag; returns s14, s15, SCC and s16."""
    lines = [
        f"s_mov_b32 s{10 + n}, {hex(v >> s & M32)}"
        for n, (v, s) in enumerate([(x, y) for x in (a, b, c) for y in (0, 32)])
    ]
    lines += ["s_mov_b32 s16, 0", f"s_cmp_eq_u32 {flag}, 1", code, "s_cselect_b32 s17, 1, 0"]
    lines += [f"v_mov_b32_e32 v{20 + n}, s{s}" for n, s in enumerate((14, 15, 17, 16))]
    lanes = amdgpu_sim.TARGETS[target].wave_size
    result = compute(target, "\n".join(lines), np.zeros(lanes, np.uint32), outputs=4)
    return tuple(int(x) for x in result[:, 0])  # type: ignore[return-value]


def nonzero32(r: int, *_: int) -> bool:
    return r & M32 != 0


def nonzero64(r: int, *_: int) -> bool:
    return r & M64 != 0


def lowest(x: int) -> int:
    return (x & -x).bit_length() - 1 if x else -1


def field(a: int, b: int) -> int:
    return a >> (b & 31) & (1 << min(b >> 16 & 127, 32)) - 1


def signed_field(a: int, b: int) -> int:
    width = min(b >> 16 & 127, 32)
    return signed(field(a, b), width) if width else 0


# gfx9's name and gfx11's (if it differs), operands' bits, value, SCC (None: unchanged)
TWO: list[tuple[str, int, Number, Number | None]] = []
for bits, nonzero in ((32, nonzero32), (64, nonzero64)):
    mask = (1 << bits) - 1
    TWO += [
        (f"s_and_b{bits}", bits, lambda a, b: a & b, nonzero),
        (f"s_or_b{bits}", bits, lambda a, b: a | b, nonzero),
        (f"s_xor_b{bits}", bits, lambda a, b: a ^ b, nonzero),
        (f"s_nand_b{bits}", bits, lambda a, b: ~(a & b), nonzero),
        (f"s_nor_b{bits}", bits, lambda a, b: ~(a | b), nonzero),
        (f"s_xnor_b{bits}", bits, lambda a, b: ~(a ^ b), nonzero),
        (f"s_andn2_b{bits} s_and_not1_b{bits}", bits, lambda a, b: a & ~b, nonzero),
        (f"s_orn2_b{bits} s_or_not1_b{bits}", bits, lambda a, b: a | ~b, nonzero),
    ]
TWO += [
    ("s_lshl_b32", 32, lambda a, b: a << (b & 31), nonzero32),
    ("s_lshr_b32", 32, lambda a, b: a >> (b & 31), nonzero32),
    ("s_ashr_i32", 32, lambda a, b: signed(a) >> (b & 31), nonzero32),
    ("s_add_u32", 32, lambda a, b: a + b, lambda r, a, b: a + b > M32),
    ("s_sub_u32", 32, lambda a, b: a - b, lambda r, a, b: b > a),
    ("s_add_i32", 32, lambda a, b: a + b, lambda r, a, b: not -(2**31) <= signed(a) + signed(b) < 2**31),
    ("s_sub_i32", 32, lambda a, b: a - b, lambda r, a, b: not -(2**31) <= signed(a) - signed(b) < 2**31),
    ("s_mul_i32", 32, lambda a, b: a * b, None),
    ("s_mul_hi_u32", 32, lambda a, b: a * b >> 32, None),
    ("s_mul_hi_i32", 32, lambda a, b: signed(a) * signed(b) >> 32, None),
    ("s_min_i32", 32, lambda a, b: min(signed(a), signed(b)), lambda r, a, b: signed(a) < signed(b)),
    ("s_max_i32", 32, lambda a, b: max(signed(a), signed(b)), lambda r, a, b: signed(a) >= signed(b)),
    ("s_min_u32", 32, min, lambda r, a, b: a < b),
    ("s_max_u32", 32, max, lambda r, a, b: a >= b),
    ("s_bfm_b32", 32, lambda a, b: ((1 << (a & 31)) - 1) << (b & 31), None),
    ("s_pack_ll_b32_b16", 32, lambda a, b: a & 0xFFFF | b << 16, None),
    ("s_pack_lh_b32_b16", 32, lambda a, b: a & 0xFFFF | b >> 16 << 16, None),
    ("s_pack_hh_b32_b16", 32, lambda a, b: a >> 16 | b >> 16 << 16, None),
    ("s_bfe_u32", 32, field, nonzero32),
    ("s_bfe_i32", 32, signed_field, nonzero32),
]
for count in (1, 2, 3, 4):
    TWO.append(
        (f"s_lshl{count}_add_u32", 32, lambda a, b, n=count: (a << n) + b, lambda r, a, b, n=count: (a << n) + b > M32)
    )
TWO12: list[tuple[str, int, Number, Number | None]] = [
    ("s_add_co_u32", 32, lambda a, b: a + b, lambda r, a, b: a + b > M32),
    ("s_sub_co_u32", 32, lambda a, b: a - b, lambda r, a, b: b > a),
    ("s_add_co_i32", 32, lambda a, b: a + b, lambda r, a, b: not -(2**31) <= signed(a) + signed(b) < 2**31),
    ("s_sub_co_i32", 32, lambda a, b: a - b, lambda r, a, b: not -(2**31) <= signed(a) - signed(b) < 2**31),
    ("s_add_nc_u64", 64, lambda a, b: a + b, None),
    ("s_sub_nc_u64", 64, lambda a, b: a - b, None),
    ("s_mul_u64", 64, lambda a, b: a * b, None),
]


def check_two(target: str, name: str, bits: int, value: Number, flag: Number | None) -> None:
    for a, b in PAIRS32 if bits == 32 else PAIRS64:
        registers = ("s14", "s10", "s12") if bits == 32 else ("s[14:15]", "s[10:11]", "s[12:13]")
        low, high, scc, _ = execute(target, f"{name} {', '.join(registers)}", a, b, flag=1)
        result = low if bits == 32 else low | high << 32
        assert result == value(a, b) % (1 << bits), (name, hex(a), hex(b))
        assert scc == (1 if flag is None else flag(value(a, b), a, b)), (name, hex(a), hex(b))


@pytest.mark.parametrize(("names", "bits", "value", "flag"), TWO, ids=[case[0].split()[0] for case in TWO])
def test_two_operands(names: str, bits: int, value: Number, flag: Number | None) -> None:
    for target, name in zip(("gfx942", "gfx1100"), names.split(), strict=False):
        check_two(target, name, bits, value, flag)


@pytest.mark.parametrize(("name", "bits", "value", "flag"), TWO12, ids=[case[0] for case in TWO12])
def test_two_operands_of_gfx12(name: str, bits: int, value: Number, flag: Number | None) -> None:
    check_two("gfx1201", name, bits, value, flag)


SHIFT64: list[tuple[str, Number]] = [
    ("s_lshl_b64", lambda a, n: a << n), ("s_lshr_b64", lambda a, n: a >> n),
    ("s_ashr_i64", lambda a, n: signed(a, 64) >> n),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), SHIFT64, ids=[case[0] for case in SHIFT64])
@pytest.mark.parametrize("count", [0, 1, 33, 64 + 5])
def test_wide_shifts(name: str, value: Number, count: int) -> None:
    for a, _ in PAIRS64:
        low, high, scc, _ = execute("gfx942", f"{name} s[14:15], s[10:11], s12", a, count)
        expected = value(a, count & 63) % 2**64
        assert (low | high << 32, scc) == (expected, expected != 0)


# name, bits of the source, bits of the result, value, SCC
ONE: list[tuple[str, int, int, Number, Number | None]] = [
    ("s_mov_b32", 32, 32, lambda a: a, None),
    ("s_mov_b64", 64, 64, lambda a: a, None),
    ("s_not_b32", 32, 32, lambda a: ~a, nonzero32),
    ("s_not_b64", 64, 64, lambda a: ~a, nonzero64),
    ("s_brev_b32", 32, 32, lambda a: int(f"{a:032b}"[::-1], 2), None),
    ("s_sext_i32_i8", 32, 32, lambda a: signed(a & 255, 8), None),
    ("s_sext_i32_i16", 32, 32, lambda a: signed(a & 0xFFFF, 16), None),
    ("s_abs_i32", 32, 32, lambda a: abs(signed(a)), nonzero32),
    ("s_bcnt1_i32_b32", 32, 32, lambda a: a.bit_count(), nonzero32),
    ("s_bcnt1_i32_b64", 64, 32, lambda a: a.bit_count(), nonzero32),
    ("s_ff1_i32_b32 s_ctz_i32_b32", 32, 32, lowest, None),
    ("s_ff1_i32_b64 s_ctz_i32_b64", 64, 32, lowest, None),
    ("s_flbit_i32_b32 s_clz_i32_u32", 32, 32, lambda a: 32 - a.bit_length() if a else -1, None),
    ("s_flbit_i32_b64 s_clz_i32_u64", 64, 32, lambda a: 64 - a.bit_length() if a else -1, None),
]


@pytest.mark.parametrize(("names", "source", "bits", "value", "flag"), ONE, ids=[case[0].split()[0] for case in ONE])
def test_one_operand(names: str, source: int, bits: int, value: Number, flag: Number | None) -> None:
    for target, name in zip(("gfx942", "gfx1100"), names.split(), strict=False):
        for a in {x for pair in (PAIRS32 if source == 32 else PAIRS64) for x in pair}:
            wide = ["s14" if bits == 32 else "s[14:15]", "s10" if source == 32 else "s[10:11]"]
            low, high, scc, _ = execute(target, f"{name} {', '.join(wide)}", a, 0, flag=1)
            assert (low if bits == 32 else low | high << 32) == value(a) % (1 << bits), hex(a)
            assert scc == (1 if flag is None else flag(value(a)))


@pytest.mark.parametrize("carry", [0, 1])
@pytest.mark.parametrize(("target", "add", "subtract"), [
    ("gfx942", "s_addc_u32", "s_subb_u32"), ("gfx1201", "s_add_co_ci_u32", "s_sub_co_ci_u32"),
])  # fmt: skip
def test_carry(target: str, add: str, subtract: str, carry: int) -> None:
    for a, b in PAIRS32:
        low, _, scc, _ = execute(target, f"{add} s14, s10, s12", a, b, flag=carry)
        assert (low, scc) == ((a + b + carry) & M32, a + b + carry > M32)
        low, _, scc, _ = execute(target, f"{subtract} s14, s10, s12", a, b, flag=carry)
        assert (low, scc) == ((a - b - carry) & M32, a < b + carry)


@pytest.mark.parametrize("flag", [0, 1])
def test_selection(flag: int) -> None:
    assert execute("gfx942", "s_cselect_b32 s14, s10, s12", 5, 6, flag=flag)[0] == (5 if flag else 6)
    assert execute("gfx942", "s_cselect_b64 s[14:15], s[10:11], s[12:13]", 5 << 32, 6 << 32, flag=flag)[1] == (
        5 if flag else 6
    )
    assert execute("gfx942", "s_cmov_b32 s14, s10", 5, 0, 9, flag)[0] == (5 if flag else 9)
    assert execute("gfx942", "s_cmov_b64 s[14:15], s[10:11]", 5 << 32, 0, 9 << 32, flag)[1] == (5 if flag else 9)


COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: a == b, "lg": lambda a, b: a != b, "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
}  # fmt: skip


@pytest.mark.parametrize("name", COMPARE)
def test_comparisons(name: str) -> None:
    for a, b in [*PAIRS32, (7, 7), (M32, M32)]:
        wanted = COMPARE[name]
        assert execute("gfx942", f"s_cmp_{name}_u32 s10, s12", a, b)[2] == wanted(a, b)
        assert execute("gfx942", f"s_cmp_{name}_i32 s10, s12", a, b)[2] == wanted(signed(a), signed(b))
        short = signed(b & 0xFFFF, 16)
        assert execute("gfx942", f"s_cmpk_{name}_i32 s10, {hex(b & 0xFFFF)}", a, 0)[2] == wanted(signed(a), short)
        assert execute("gfx942", f"s_cmpk_{name}_u32 s10, {hex(b & 0xFFFF)}", a, 0)[2] == wanted(a, b & 0xFFFF)
    for a, b in [*PAIRS64, (1 << 40, 1 << 40)]:
        assert execute("gfx942", f"s_cmp_{name}_u64 s[10:11], s[12:13]", a, b)[2] == COMPARE[name](a, b)


def test_bit_tests_and_short_immediates() -> None:
    for bit in (0, 3, 31):
        assert execute("gfx942", "s_bitcmp1_b32 s10, s12", 0x80000008, bit)[2] == (bit != 0)
        assert execute("gfx942", "s_bitcmp0_b32 s10, s12", 0x80000008, bit)[2] == (bit == 0)
    assert execute("gfx942", "s_movk_i32 s14, 0x8001", 0, 0)[0] == 0xFFFF8001
    low, _, scc, _ = execute("gfx942", "s_addk_i32 s14, 0x1", 0, 0, 0x7FFFFFFF)
    assert (low, scc) == (0x80000000, 1)
    assert execute("gfx1201", "s_addk_co_i32 s14, 0xfffe", 0, 0, 1)[0] == M32
    low, _, scc, _ = execute("gfx942", "s_mulk_i32 s14, 0xfffe", 0, 0, 3, flag=1)
    assert (low, scc) == (-6 & M32, 1)


FLOATS = [(1.5, -2.25), (3.0e38, 3.0e38), (-0.0, 0.0), (7.0, 0.1), (1e-3, 5e-4)]
FLOAT: list[tuple[str, int, Number]] = [
    ("s_add_f32", 2, lambda a, b: a + b), ("s_sub_f32", 2, lambda a, b: a - b), ("s_mul_f32", 2, lambda a, b: a * b),
    ("s_max_num_f32", 2, max), ("s_min_num_f32", 2, min), ("s_trunc_f32", 1, np.trunc), ("s_floor_f32", 1, np.floor),
    ("s_rndne_f32", 1, np.rint),
]  # fmt: skip


def bits_of(x: Any) -> int:
    return int(np.float32(x).view(np.uint32))


@pytest.mark.parametrize(("name", "count", "value"), FLOAT, ids=[case[0] for case in FLOAT])
def test_floats_of_gfx12(name: str, count: int, value: Number) -> None:
    for a, b in FLOATS:
        x, y = np.float32(a), np.float32(b)
        with np.errstate(all="ignore"):
            expected = np.float32(value(x, y) if count == 2 else value(x))
        sources = "s10, s12" if count == 2 else "s10"
        result = np.uint32(execute("gfx1201", f"{name} s14, {sources}", bits_of(a), bits_of(b))[0]).view(np.float32)
        assert result == expected


def test_float_conversions_and_multiply_add_of_gfx12() -> None:
    for name, source, expected in [
        ("s_cvt_f32_u32", 0xFFFFFF80, bits_of(0xFFFFFF80)), ("s_cvt_f32_i32", 0xFFFFFF80, bits_of(-128)),
        ("s_cvt_u32_f32", bits_of(-3.5), 0), ("s_cvt_u32_f32", bits_of(5e9), M32),
        ("s_cvt_i32_f32", bits_of(-3.7), -3 & M32), ("s_cvt_i32_f32", bits_of(math.nan), 0),
        ("s_cvt_i32_f32", bits_of(-4e9), 1 << 31),
    ]:  # fmt: skip
        assert execute("gfx1201", f"{name} s14, s10", source, 0)[0] == expected, name
    a, b = bits_of(1.5), bits_of(-2.0)
    assert execute("gfx1201", "s_fmac_f32 s14, s10, s12", a, b, bits_of(10.0))[0] == bits_of(7.0)
    assert execute("gfx1201", "s_fmaak_f32 s14, s10, s12, 0x41200000", a, b)[0] == bits_of(7.0)
    assert execute("gfx1201", "s_fmamk_f32 s14, s10, 0x41200000, s12", a, b)[0] == bits_of(13.0)
    for name, wanted in COMPARE.items():
        for x, y in FLOATS:
            assert execute("gfx1201", f"s_cmp_{name}_f32 s10, s12", bits_of(x), bits_of(y))[2] == wanted(
                np.float32(x), np.float32(y)
            )


SAVE: list[tuple[str, Number]] = [
    ("s_and_saveexec", lambda a, e: a & e),
    ("s_or_saveexec", lambda a, e: a | e),
    ("s_xor_saveexec", lambda a, e: a ^ e),
    ("s_andn2_saveexec s_and_not1_saveexec", lambda a, e: a & ~e),
    ("s_orn2_saveexec s_or_not1_saveexec", lambda a, e: a | ~e),
    ("s_andn1_saveexec s_and_not0_saveexec", lambda a, e: ~a & e),
]


@pytest.mark.parametrize(("names", "value"), SAVE, ids=[case[0].split()[0] for case in SAVE])
@pytest.mark.parametrize("mask", [0x00FF00F3, 0xFFFFFFFF, 0])
def test_saveexec(names: str, value: Number, mask: int) -> None:
    before = 0x0F0F0F0F
    wide = (mask | 0x55 << 40, before | before << 32)
    for name in names.split():
        gfx9 = name == names.split()[0]
        target, size = ("gfx942", 64) if gfx9 else ("gfx1100", 32)
        source, old = wide if size == 64 else (mask, before)
        register, saved, exec_name = ("s[10:11]", "s[14:15]", "exec") if size == 64 else ("s10", "s14", "exec_lo")
        put = f"s_mov_b32 exec_lo, {before:#x}" + (f"\ns_mov_b32 exec_hi, {before:#x}" if size == 64 else "")
        read = "s_mov_b32 s16, exec_lo" + ("\ns_mov_b32 s15, exec_hi" if size == 64 else "")
        code = (
            f"{put}\n{name}_b{size} {saved}, {register}\n{read}\ns_cselect_b32 s10, 1, 0\ns_mov_b{size} {exec_name}, -1"
        )
        low, high, scc, new = execute(target, code + "\ns_cmp_eq_u32 s10, 1", source, 0)
        expected = value(source, old) % (1 << size)
        assert (low, new, scc) == (before, expected & M32, expected != 0)
        if size == 64:
            assert high == expected >> 32


@pytest.mark.parametrize(("branch", "setup", "taken"), [
    ("s_cbranch_vccz", "s_mov_b64 vcc, 0", True), ("s_cbranch_vccz", "s_mov_b64 vcc, 4", False),
    ("s_cbranch_vccnz", "s_mov_b64 vcc, 4", True), ("s_cbranch_vccnz", "s_mov_b64 vcc, 0", False),
    ("s_cbranch_execz", "s_mov_b64 exec, 0", True), ("s_cbranch_execz", "s_nop 0", False),
    ("s_cbranch_execnz", "s_nop 0", True), ("s_cbranch_execnz", "s_mov_b64 exec, 0", False),
    ("s_cbranch_scc0", "s_nop 0", True), ("s_cbranch_scc1", "s_nop 0", False), ("s_branch", "s_nop 0", True),
])  # fmt: skip
def test_branches(branch: str, setup: str, taken: bool) -> None:
    code = f"{setup}\n{branch} .Lend\ns_mov_b32 s14, 7\n.Lend:\ns_mov_b64 exec, -1\ns_cmp_eq_u32 0, 1"
    assert execute("gfx942", code, 0, 0)[0] == (0 if taken else 7)


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("gfx942", line)
        for line in (
            "s_nop 0",
            "v_nop",
            "s_setprio 1",
            "s_sleep 1",
            "s_sched_barrier 0",
            "s_icache_inv",
            "s_dcache_inv",
            "s_dcache_wb",
            "s_sethalt 0",
            "buffer_inv sc1",
            "buffer_wbl2 sc1",
            "buffer_wbinvl1",
            "s_waitcnt 0",
            "s_waitcnt vmcnt(0) & lgkmcnt(0)",
            "s_waitcnt expcnt(0)",
        )
    ]
    + [
        ("gfx1100", line)
        for line in (
            "s_delay_alu instid0(VALU_DEP_1)",
            "s_clause 0x1",
            "s_sendmsg sendmsg(MSG_DEALLOC_VGPRS)",
            "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 23, 1), 1",
            "buffer_gl0_inv",
            "buffer_gl1_inv",
            "s_waitcnt_vscnt null, 0x0",
            "s_waitcnt_vmcnt null, 0x0",
            "s_waitcnt_lgkmcnt null, 0x0",
            "s_waitcnt_depctr 0xfff",
            "s_set_inst_prefetch_distance 0x1",
            "s_wait_idle",
        )
    ]
    + [
        ("gfx1201", line)
        for line in (
            "s_wait_alu 0xfffd",
            "global_inv scope:SCOPE_DEV",
            "global_wb scope:SCOPE_DEV",
            "global_wbinv scope:SCOPE_DEV",
            "s_wait_samplecnt 0x0",
            "s_wait_bvhcnt 0x0",
            "s_wait_storecnt_dscnt 0x0",
            "s_wait_expcnt 0x0",
            "s_code_end",
            "s_prefetch_inst s[0:1], 0x0, null, 31",
        )
    ],
)
def test_scheduling_changes_no_register(target: str, line: str) -> None:
    assert execute(target, line, 1, 2, 3 | 4 << 32) == (3, 4, 0, 0)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("s_sendmsg sendmsg(MSG_INTERRUPT)", "MSG_DEALLOC_VGPRS"),
        ("s_setreg_imm32_b32 hwreg(HW_REG_MODE, 0, 4), 3", "rounding to nearest"),
        ("s_waitcnt bogus(1)", "named counters"),
        ("s_add_u32 s4, s5", "3 operands"),
        ("s_add_u32 5, s5, s6", "cannot be written"),
    ],
)
def test_what_is_refused(line: str, why: str) -> None:
    with pytest.raises(amdgpu_sim.UnsupportedInstructionError, match=why):
        execute("gfx942", line, 0, 0)
