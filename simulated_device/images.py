"""Device code in programs: registration when they are loaded, kernels by host address, device variables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from simulated_device.calls import as_text, common, write_word
from simulated_device.status import CallError, Status

if TYPE_CHECKING:
    from simulated_device.runtime import Runtime


class Code(Protocol):
    """Code of one target, in this process's memory."""

    @property
    def kernels(self) -> Container[str]:
        """Names of the kernels."""


CodeT = TypeVar("CodeT", bound=Code)


class Image(ABC, Generic[CodeT]):
    """Code for one or more targets, loaded for a target when first used."""

    def __init__(self) -> None:
        """Nothing is loaded."""
        self._loaded: dict[str, CodeT] = {}

    @abstractmethod
    def load(self, target: Any) -> CodeT | None:
        """Load the code for ``target``; None if there is none."""

    @abstractmethod
    def ranges(self, code: CodeT) -> dict[str, tuple[int, int]]:
        """(address, bytes) of the device variables by name."""

    def code(self, target: Any) -> CodeT:
        """The code for ``target``; CallError NO_BINARY_FOR_GPU if there is none."""
        if target.name not in self._loaded:
            code = self.load(target)
            if code is None:
                raise CallError(Status.NO_BINARY_FOR_GPU)
            self._loaded[target.name] = code
        return self._loaded[target.name]

    def loaded_ranges(self, target: Any) -> list[tuple[int, int]]:
        """(address, bytes) of the device variables for ``target``, if its code is loaded."""
        code = self._loaded.get(target.name)
        return [] if code is None else list(self.ranges(code).values())


@dataclass(frozen=True, eq=False)
class Function(Generic[CodeT]):
    """Kernel ``name`` of ``image``."""

    image: Image[CodeT]
    name: str

    def code(self, target: Any) -> CodeT:
        """The code for ``target`` that holds the kernel; CallError if there is none."""
        code = self.image.code(target)
        if self.name not in code.kernels:
            raise CallError(Status.INVALID_DEVICE_FUNCTION)
        return code


@dataclass(frozen=True, eq=False)
class Variable(Generic[CodeT]):
    """Device variable ``name`` of ``image``."""

    image: Image[CodeT]
    name: str

    def range(self, target: Any) -> tuple[int, int]:
        """(address, bytes) for ``target``; CallError INVALID_SYMBOL if its code lacks the variable."""
        ranges = self.image.ranges(self.image.code(target))
        if self.name not in ranges:
            raise CallError(Status.INVALID_SYMBOL)
        return ranges[self.name]


@common("__{}RegisterFatBinary")
def _register_fat_binary(runtime: Runtime[Any], wrapper: int) -> int:
    handle = runtime.new_handle()
    runtime.images[handle] = runtime.image(wrapper)
    return handle


@common("__{}UnregisterFatBinary")
def _unregister_fat_binary(runtime: Runtime[Any], handle: int) -> None:
    runtime.forget_image(handle)


@common("__{}RegisterFunction")
def _register_function(runtime: Runtime[Any], handle: int, function: int, device_function: int, name: int) -> None:
    runtime.functions[function] = Function(runtime.images[handle], as_text(name))


@common("__{}RegisterVar")
def _register_variable(runtime: Runtime[Any], handle: int, variable: int, device_variable: int, name: int) -> None:
    runtime.variables[variable] = Variable(runtime.images[handle], as_text(name))


@common("__{}RegisterManagedVar")
def _register_managed(runtime: Runtime[Any], handle: int, pointer: int, initial: int, name: int) -> None:
    raise runtime.error(f"managed variable {as_text(name)}: not supported")


@common("{}GetSymbolAddress")
def _get_symbol_address(runtime: Runtime[Any], pointer: int, symbol: int) -> None:
    write_word(pointer, runtime.variable(symbol)[0])


@common("{}FuncSetCacheConfig")
def _func_set_cache_config(runtime: Runtime[Any], key: int, config: int) -> None:
    runtime.function(key)
