"""A kernel launch as a value: it can be run, or compiled without a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Launch:
    """``kernel[grid](**arguments, **options)``.

    Arguments are named as the kernel's parameters; those that the kernel does not have are left out, so that
    kernels take what they need from one set of arguments. ``options`` are the compiler's (``num_warps``...).
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: Mapping[str, Any]
    options: Mapping[str, Any]

    def run(self) -> None:
        """Launch the kernel; an empty grid launches nothing."""
        if all(size > 0 for size in self.grid):
            self.kernel[self.grid](**self._parameters(), **self.options)

    def compile(self) -> Any:
        """Compile for the target of Triton's active driver, from shapes alone; returns Triton's compiled kernel."""
        return self.kernel.warmup(grid=self.grid, **self._parameters(), **self.options)

    def _parameters(self) -> dict[str, Any]:
        return {name: self.arguments[name] for name in self.kernel.arg_names}
