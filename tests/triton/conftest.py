"""Switching the simulator on within a test: dispatch reads FLASH_ATTENTION_SIMULATE once a process."""

from collections.abc import Callable, Iterator

import pytest

from flash_attn import dispatch


def _forget() -> None:
    dispatch.simulated_target.cache_clear()
    dispatch.backend.cache_clear()
    dispatch._selected.clear()


@pytest.fixture
def simulate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A function that sets the variable as a new process would find it."""

    def switch(value: str) -> None:
        monkeypatch.setenv("FLASH_ATTENTION_SIMULATE", value)
        _forget()

    _forget()
    yield switch
    _forget()
