"""Streams and events of the HIP stand-in. Every call runs to its end before it returns: there is no waiting.

The time between events is the simulator's own, on the host's clock; it says nothing of a GPU.
"""

from __future__ import annotations

import ctypes
import time

from amdgpu_sim.hip.errors import HipError, Status
from amdgpu_sim.hip.runtime import HipRuntime, implements, write_int, write_word

# null, hipStreamLegacy, hipStreamPerThread
_STANDARD_STREAMS = (0, 1, 2)


def _check_stream(runtime: HipRuntime, stream: int) -> None:
    if stream not in _STANDARD_STREAMS and stream not in runtime.streams:
        raise HipError(Status.INVALID_HANDLE)


def _check_event(runtime: HipRuntime, event: int) -> None:
    if event not in runtime.events:
        raise HipError(Status.INVALID_HANDLE)


@implements("hipStreamCreate")
def _stream_create(runtime: HipRuntime, pointer: int) -> None:
    handle = runtime.new_handle()
    write_word(pointer, handle)
    runtime.streams.add(handle)


@implements("hipStreamCreateWithFlags")
def _stream_create_with_flags(runtime: HipRuntime, pointer: int, flags: int) -> None:
    _stream_create(runtime, pointer)


@implements("hipStreamCreateWithPriority")
def _stream_create_with_priority(runtime: HipRuntime, pointer: int, flags: int, priority: int) -> None:
    _stream_create(runtime, pointer)


@implements("hipStreamDestroy")
def _stream_destroy(runtime: HipRuntime, stream: int) -> None:
    if stream not in runtime.streams:
        raise HipError(Status.INVALID_HANDLE)
    runtime.streams.remove(stream)


@implements("hipStreamSynchronize", "hipStreamQuery")
def _stream_synchronize(runtime: HipRuntime, stream: int) -> None:
    _check_stream(runtime, stream)
    runtime.check_alive()


@implements("hipStreamWaitEvent")
def _stream_wait_event(runtime: HipRuntime, stream: int, event: int, flags: int) -> None:
    _check_stream(runtime, stream)
    _check_event(runtime, event)


@implements("hipStreamIsCapturing")
def _stream_is_capturing(runtime: HipRuntime, stream: int, pointer: int) -> None:
    _check_stream(runtime, stream)
    write_int(pointer, 0)


@implements("hipEventCreate")
def _event_create(runtime: HipRuntime, pointer: int) -> None:
    handle = runtime.new_handle()
    write_word(pointer, handle)
    runtime.events[handle] = None


@implements("hipEventCreateWithFlags")
def _event_create_with_flags(runtime: HipRuntime, pointer: int, flags: int) -> None:
    _event_create(runtime, pointer)


@implements("hipEventRecord")
def _event_record(runtime: HipRuntime, event: int, stream: int) -> None:
    _check_event(runtime, event)
    _check_stream(runtime, stream)
    runtime.check_alive()
    runtime.events[event] = time.perf_counter()


@implements("hipEventSynchronize", "hipEventQuery")
def _event_synchronize(runtime: HipRuntime, event: int) -> None:
    _check_event(runtime, event)
    runtime.check_alive()


@implements("hipEventElapsedTime")
def _event_elapsed_time(runtime: HipRuntime, milliseconds: int, start: int, stop: int) -> None:
    times = runtime.events.get(start), runtime.events.get(stop)
    if not milliseconds:
        raise HipError(Status.INVALID_VALUE)
    if times[0] is None or times[1] is None:
        raise HipError(Status.INVALID_HANDLE)
    ctypes.c_float.from_address(milliseconds).value = 1e3 * (times[1] - times[0])


@implements("hipEventDestroy")
def _event_destroy(runtime: HipRuntime, event: int) -> None:
    _check_event(runtime, event)
    del runtime.events[event]
