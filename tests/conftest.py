"""Shared fixtures: uninitialised memory is poison, and the environment does not choose the backend."""

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from flash_attn import environment

# Workers of pytest-xdist share the threads that PyTorch, and so OMP_NUM_THREADS, allows.
torch.set_num_threads(max(1, torch.get_num_threads() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))
settings.register_profile("default", deadline=None, print_blob=True)
settings.load_profile("default")


@pytest.fixture(autouse=True)
def _poisoned_memory() -> Iterator[None]:
    """Fill what ``torch.empty`` and its relatives return with NaN (PyTorch does so in deterministic mode)."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in environment.VARIABLES:
        monkeypatch.delenv(variable.name, raising=False)
