"""What ends with a ``with`` block."""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar

_Self = TypeVar("_Self", bound="Closing")


class Closing:
    """As a context manager it is itself, and closes at the end, also after an error."""

    def close(self) -> None:
        """End it."""
        raise NotImplementedError

    def __enter__(self: _Self) -> _Self:
        """The object itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; what that raises comes before ``error``."""
        self.close()
