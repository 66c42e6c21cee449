"""Streams and events of a runtime library. Every call runs to its end before it returns: there is no waiting.

The time between events is the simulator's own, on the host's clock; it says nothing of a GPU.
"""

from __future__ import annotations

import ctypes
import time
from typing import TYPE_CHECKING, Any

from simulated_device.calls import common, write_int, write_word
from simulated_device.status import CallError, Status

if TYPE_CHECKING:
    from simulated_device.runtime import Runtime

# null, the legacy one, the one of each thread
_STANDARD_STREAMS = (0, 1, 2)


def _check_stream(runtime: Runtime[Any], stream: int) -> None:
    if stream not in _STANDARD_STREAMS and stream not in runtime.streams:
        raise CallError(Status.INVALID_HANDLE)


def _check_event(runtime: Runtime[Any], event: int) -> None:
    if event not in runtime.events:
        raise CallError(Status.INVALID_HANDLE)


@common("{}StreamCreateWithPriority", ignored=2)
@common("{}StreamCreateWithFlags", ignored=1)
@common("{}StreamCreate")
def _stream_create(runtime: Runtime[Any], pointer: int) -> None:
    handle = runtime.new_handle()
    write_word(pointer, handle)
    runtime.streams.add(handle)


@common("{}StreamDestroy")
def _stream_destroy(runtime: Runtime[Any], stream: int) -> None:
    if stream not in runtime.streams:
        raise CallError(Status.INVALID_HANDLE)
    runtime.streams.remove(stream)


@common("{}StreamSynchronize", "{}StreamQuery")
def _stream_synchronize(runtime: Runtime[Any], stream: int) -> None:
    _check_stream(runtime, stream)
    runtime.check_alive()


@common("{}StreamWaitEvent", ignored=1)
def _stream_wait_event(runtime: Runtime[Any], stream: int, event: int) -> None:
    _check_stream(runtime, stream)
    _check_event(runtime, event)


@common("{}StreamIsCapturing")
def _stream_is_capturing(runtime: Runtime[Any], stream: int, pointer: int) -> None:
    _check_stream(runtime, stream)
    write_int(pointer, 0)


@common("{}EventCreateWithFlags", ignored=1)
@common("{}EventCreate")
def _event_create(runtime: Runtime[Any], pointer: int) -> None:
    handle = runtime.new_handle()
    write_word(pointer, handle)
    runtime.events[handle] = None


@common("{}EventRecord")
def event_record(runtime: Runtime[Any], event: int, stream: int) -> None:
    """Note the time; all that ``stream`` was given before has ended."""
    _check_event(runtime, event)
    _check_stream(runtime, stream)
    runtime.check_alive()
    runtime.events[event] = time.perf_counter()


@common("{}EventSynchronize", "{}EventQuery")
def _event_synchronize(runtime: Runtime[Any], event: int) -> None:
    _check_event(runtime, event)
    runtime.check_alive()


@common("{}EventElapsedTime")
def _event_elapsed_time(runtime: Runtime[Any], milliseconds: int, start: int, stop: int) -> None:
    times = runtime.events.get(start), runtime.events.get(stop)
    if not milliseconds:
        raise CallError(Status.INVALID_VALUE)
    if times[0] is None or times[1] is None:
        raise CallError(Status.INVALID_HANDLE)
    ctypes.c_float.from_address(milliseconds).value = 1e3 * (times[1] - times[0])


@common("{}EventDestroy")
def _event_destroy(runtime: Runtime[Any], event: int) -> None:
    _check_event(runtime, event)
    del runtime.events[event]
