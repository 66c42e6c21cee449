"""Calls of a runtime library as functions of (runtime, words...), and the C values behind the words."""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable
from typing import Any

from simulated_device.status import CallError, Status

Handler = Callable[..., int | None]
# name -> function of (runtime, words...) and its number of words
HandlerTable = dict[str, tuple[Handler, int]]

# the calls that all runtime libraries have; {} stands for "cuda" or "hip"
COMMON: HandlerTable = {}


def into(table: HandlerTable) -> Callable[..., Callable[[Handler], Handler]]:
    """The decorator ``implements(*names, ignored=0)`` that registers in ``table``.

    The C functions ``names`` take as many words as the decorated function has parameters besides the runtime, and
    then ``ignored`` ones.
    """

    def implements(*names: str, ignored: int = 0) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            words = len(inspect.signature(handler).parameters) - 1

            def call(runtime: Any, *given: int) -> int | None:
                return handler(runtime, *given[:words])

            table.update(dict.fromkeys(names, (call, words + ignored)))
            return handler

        return register

    return implements


common = into(COMMON)


def write_int(address: int, value: int) -> None:
    """Store a C int."""
    ctypes.c_int32.from_address(_pointer(address)).value = value


def write_word(address: int, value: int) -> None:
    """Store a pointer, handle or size_t."""
    ctypes.c_uint64.from_address(_pointer(address)).value = value


def write_bytes(address: int, data: bytes) -> None:
    """Store a structure or a text."""
    ctypes.memmove(_pointer(address), data, len(data))


def as_int(word: int) -> int:
    """The C int that came in a 64-bit word whose upper half is undefined."""
    return ctypes.c_int32(word & 0xFFFFFFFF).value


def as_unsigned(word: int) -> int:
    """The C unsigned int that came in a 64-bit word whose upper half is undefined."""
    return word & 0xFFFFFFFF


def as_text(address: int) -> str:
    """The C string at ``address``."""
    return ctypes.string_at(_pointer(address)).decode()


def pointed_bytes(pointers: int, sizes: list[int]) -> list[bytes]:
    """Bytes behind each pointer of the array at ``pointers``."""
    if sizes and not pointers:
        raise CallError(Status.INVALID_VALUE)
    return [
        ctypes.string_at(ctypes.c_uint64.from_address(pointers + 8 * number).value, size)
        for number, size in enumerate(sizes)
    ]


def _pointer(address: int) -> int:
    if not address:
        raise CallError(Status.INVALID_VALUE)
    return address
