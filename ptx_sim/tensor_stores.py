"""Boxes of shared memory that the TMA unit writes to a tensor, or adds to one.

They are read as late as they may be: when the thread that sent them waits. So what is overwritten before is found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ptx_sim.errors import MissingWaitError
from ptx_sim.types import Array


@dataclass
class _Sent:
    open: list[Callable[[], None]] = field(default_factory=list)
    committed: list[list[Callable[[], None]]] = field(default_factory=list)


class TensorStores:
    """What every thread has sent: its committed groups and the group that is open."""

    def __init__(self) -> None:
        """Nothing is on its way."""
        self._sent: dict[int, _Sent] = {}

    def begin(self, thread: int, deliver: Callable[[], None]) -> None:
        """``deliver()`` reads shared memory and writes the tensor."""
        self._sent.setdefault(thread, _Sent()).open.append(deliver)

    def commit(self, threads: Array) -> None:
        """Close the group of each of ``threads``."""
        for thread in threads.tolist():
            sent = self._sent.setdefault(thread, _Sent())
            sent.committed.append(sent.open)
            sent.open = []

    def wait(self, threads: Array, newest: int) -> None:
        """``threads`` wait for their groups, the ``newest`` ones left out."""
        for thread in threads.tolist():
            sent = self._sent.get(thread)
            while sent is not None and len(sent.committed) > newest:
                for deliver in sent.committed.pop(0):
                    deliver()

    def threads_left(self, mask: Array) -> None:
        """The threads ``mask`` end: shared memory may go with them. MissingWaitError if it is still to be read."""
        for thread, sent in self._sent.items():
            if mask[thread] and (sent.open or any(sent.committed)):
                raise MissingWaitError("a thread ends before the shared memory that it sent has been read", thread)
