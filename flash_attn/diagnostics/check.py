"""``python -m flash_attn check``: every feature of a backend on this machine against the oracle in float64."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from flash_attn import dispatch
from flash_attn.diagnostics import support
from flash_attn.diagnostics.progress import show_progress
from flash_attn.diagnostics.text_table import terminal_table
from flash_attn.feature_cases import FEATURES, Feature
from flash_attn.testing import AttentionCase, compare_attention, compare_decode

PASSED, FAILED, UNAVAILABLE = 0, 1, 2
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)  # the most telling first


@dataclass(frozen=True)
class Row:
    """Outcome of one feature in one dtype; ``ratio`` is the worst error over what is allowed."""

    feature: str
    dtype: str
    ratio: float | None
    seconds: float
    verdict: str
    failed: bool

    def cells(self) -> list[str]:
        """The row as text."""
        ratio = "-" if self.ratio is None else f"{self.ratio:.2f}"
        return [self.feature, self.dtype, ratio, f"{self.seconds * 1e3:.0f} ms", self.verdict]


class UnavailableError(RuntimeError):
    """Nothing can be checked; the message lists the reasons."""


def run_check(backend: str | None = None, device: str | None = None, quick: bool = False) -> int:
    """Check a backend, print the table and return the exit code.

    Args:
        backend: name of the backend; ``None`` takes that of ``FLASH_ATTENTION_BACKEND``, else the fastest available.
        device: ``cpu`` or ``cuda`` (AMD's GPUs too); ``None`` takes a GPU where one can be used.
        quick: features in one dtype, the most exact that the backend has, instead of three. Emulated kernels
            always run in one, on short cases.

    Returns:
        0 when everything that is supported passed, 1 when something failed, 2 when there is nothing to check.
    """
    asked = backend or dispatch.requested()
    try:
        name, where = choose(None if asked == "auto" else asked, device)
    except UnavailableError as error:
        print(error)
        return UNAVAILABLE
    print(f"backend {name} on {where}: error over allowed error against the oracle in float64")
    features = _emulated() if dispatch.backend(name).emulated else _on_the_machine(name, where, quick)
    rows = []
    for done, feature in enumerate(features, start=1):
        show_progress(f"[{done}/{len(features)}] {feature.name}")
        rows.append(check_feature(name, where, feature))
    show_progress("")
    print(terminal_table(["feature", "dtype", "error/allowed", "time", "verdict"], [row.cells() for row in rows]))
    failed = sum(row.failed for row in rows)
    unsupported = sum(row.ratio is None and not row.failed for row in rows)
    print(f"{len(rows) - failed - unsupported} passed, {failed} failed, {unsupported} unsupported")
    return FAILED if failed else PASSED


def choose(backend: str | None, device: str | None) -> tuple[str, torch.device]:
    """The backend to check and its device: the first of all that fit which supports at least one feature.

    Raises:
        UnavailableError: none does.
    """
    against = []
    for name, where in _combinations(backend, device):
        reasons = [dispatch.reasons_against(name, feature.spec(), where) for feature in FEATURES]
        if not all(reasons):
            return name, where
        distinct = dict.fromkeys(reason for listed in reasons for reason in listed)
        against.append(f"  {name} on {where}: {'; '.join(distinct)}")
    asked = f"backend {backend!r} is not available" if backend else "no backend is available"
    raise UnavailableError("\n".join([f"{asked}:", *against]))


def check_feature(backend: str, device: torch.device, feature: Feature) -> Row:
    """Run one feature, forward and backward or decoding, and compare every result with the oracle."""
    case = feature.case
    dtype = str(case.dtype).removeprefix("torch.")
    reasons = dispatch.reasons_against(backend, feature.spec(), device)
    if reasons:
        return Row(feature.name, dtype, None, 0.0, f"unsupported: {'; '.join(reasons)}", failed=False)
    started = time.perf_counter()
    try:
        with dispatch.use_backend(backend):
            if isinstance(case, AttentionCase):
                results = compare_attention(case, device)
            else:
                results = compare_decode(case, device)
    except Exception as error:  # one broken feature must not hide the others
        seconds = time.perf_counter() - started
        return Row(feature.name, dtype, None, seconds, f"error: {type(error).__name__}: {error}", failed=True)
    seconds = time.perf_counter() - started
    worst = max(results, key=lambda result: result.error / result.allowed)
    wrong = [result.name for result in results if not result.passed]
    verdict = f"FAILED: {', '.join(wrong)}" if wrong else "passed"
    return Row(feature.name, dtype, worst.error / worst.allowed, seconds, verdict, failed=bool(wrong))


def _combinations(backend: str | None, device: str | None) -> list[tuple[str, torch.device]]:
    if device is not None:
        devices = [device]
    elif backend is not None:
        devices = [dispatch.backend(backend).device_type]
    else:
        devices = ["cuda", "cpu"] if torch.cuda.is_available() else ["cpu"]
    found = []
    for where in map(torch.device, devices):
        found += [(name, where) for name in ((backend,) if backend else dispatch.candidates(where))]
    return found


def _on_the_machine(backend: str, device: torch.device, quick: bool) -> list[Feature]:
    """Every feature in three dtypes, or in the most exact one of them that the backend has."""
    dtypes: Sequence[torch.dtype] = _DTYPES
    if quick:
        probes = ((dtype, support.PROBE.with_dtype(dtype).spec()) for dtype in _DTYPES)
        had = [dtype for dtype, spec in probes if not dispatch.reasons_against(backend, spec, device)]
        dtypes = had[:1] or _DTYPES
    return [feature for listed in FEATURES for feature in _in_dtypes(listed, dtypes)]


def _emulated() -> list[Feature]:
    """Every feature on its short case, in the dtype it is listed with: a simulator or interpreter is slow."""
    print("kernels are emulated: short cases, and one dtype a feature")
    return [feature.shortened() for feature in FEATURES]


def _in_dtypes(feature: Feature, dtypes: Sequence[torch.dtype]) -> list[Feature]:
    return [feature.with_dtype(dtype) for dtype in dtypes] if feature.any_dtype else [feature]
