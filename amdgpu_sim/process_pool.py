"""Runs the work-groups of one launch in several processes.

Before the workers are forked, every writable allocation moves into memory that they share; afterwards it is
copied back. Atomics of all workers exclude each other, so that their sums are complete; their order is not that
of a single process, and neither is the last bit of a float sum. Everything else must not depend on the order of
work-groups, as on hardware.
"""

from __future__ import annotations

import mmap
import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from amdgpu_sim.errors import SimulatorError
from amdgpu_sim.memory import GlobalMemory
from amdgpu_sim.waves import Array

Counts = tuple[Array, Array, Array]


def run_in_processes(parts: Sequence[Array], memory: GlobalMemory, work: Callable[[Array], Counts]) -> list[Counts]:
    """Call ``work`` with each of ``parts`` in a process of its own; returns what the calls returned.

    Raises the first worker's exception, by number; what the workers stored until then stays in memory.
    SimulatorError if the platform cannot fork or a worker dies.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        raise SimulatorError("processes: this platform cannot fork; use processes=1")
    context: Any = multiprocessing.get_context("fork")
    originals = memory.replace_writable(_shared_copy)
    memory.exclusive = context.Lock()
    workers = []
    try:
        for part in parts:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_worker, args=(sender, work, part))
            process.start()
            sender.close()
            workers.append((process, receiver))
        answers = [_answer(process, receiver) for process, receiver in workers]
    finally:
        for process, _ in workers:
            process.join()
        memory.restore(originals)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers


def _shared_copy(data: Array) -> Array:
    shared = np.frombuffer(mmap.mmap(-1, len(data)), np.uint8)
    shared[:] = data
    return shared


def _worker(sender: Connection, work: Callable[[Array], Counts], part: Array) -> None:
    try:
        sender.send(work(part))
    except Exception as error:  # every failure belongs to the process that asked for the work
        sender.send(error)


def _answer(process: Any, receiver: Connection) -> Any:
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        return SimulatorError(f"processes: a worker ended with exit code {process.exitcode}")
