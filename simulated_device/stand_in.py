"""Builds the stand-in for a runtime library with the machine's C compiler, once, and loads it."""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulated_device.runtime import Runtime

_HEADER = Path(__file__).with_name("runtime_calls.h")
_DISPATCH = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_char_p, ctypes.POINTER(ctypes.c_ssize_t))


class StandIn:
    """The library in C whose every call reaches ``runtime``."""

    def __init__(self, runtime: Runtime[Any], source: Path, sonames: Sequence[str], cache: str) -> None:
        """``source`` includes ``runtime_calls.h`` and has its symbols' versions in a ``.map`` beside it.

        One library is built for each of ``sonames``; they are cached in ``$XDG_CACHE_HOME/cache`` (default ~/.cache).
        """
        self.runtime, self._source, self._sonames, self._cache = runtime, source, sonames, cache
        self._libraries: list[ctypes.CDLL] = []
        # what C code calls must stay alive
        self._callback = _DISPATCH(runtime.dispatch)

    def _compiler(self) -> list[str]:
        if os.environ.get("CC"):
            return shlex.split(os.environ["CC"])
        for name in ("cc", "gcc", "clang"):
            if found := shutil.which(name):
                return [found]
        raise self.runtime.error(
            f"the {self.runtime.name} front door needs a C compiler: install gcc or clang, or set CC"
        )

    def folder(self) -> Path:
        """The folder with the libraries, also without a version for ``-L``; built on first use.

        The runtime's error if they cannot be built.
        """
        name, versions = self.runtime.name, self._source.with_suffix(".map")
        command = [*self._compiler(), "-std=gnu11", "-O1", "-fPIC", "-shared", "-Wall", "-Werror", str(self._source),
                   f"-I{_HEADER.parent}", f"-Wl,--version-script={versions}"]  # fmt: skip
        content = "\0".join([*command, *(file.read_text() for file in (self._source, _HEADER, versions))])
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / self._cache
        folder = cache / f"{name.lower()}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
        if folder.is_dir():
            return folder
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as parent:
            made = Path(parent) / "made"
            made.mkdir()
            for soname in self._sonames:
                build = [*command, f"-Wl,-soname,{soname}", "-o", str(made / soname)]
                result = subprocess.run(build, capture_output=True, text=True, check=False)
                if result.returncode:
                    raise self.runtime.error(
                        f"building the {name} stand-in failed: {shlex.join(build)}\n{result.stderr}"
                    )
            (made / f"{self._source.stem}.so").symlink_to(self._sonames[0])
            try:
                made.rename(folder)
            except OSError:  # another process was faster
                if not folder.is_dir():
                    raise
        return folder

    def _refuse_other_runtimes(self, folder: Path) -> None:
        """A process that has the real runtime loaded would mix both."""
        for line in Path("/proc/self/maps").read_text().splitlines():
            path = line.split(maxsplit=5)[-1]
            if self._source.stem in path and Path(path).parent != folder:
                raise self.runtime.error(f"{path} is loaded already: the simulated device needs a process without it")

    def load(self) -> None:
        """Load the stand-in so that libraries loaded later find it, and connect it to the runtime's state."""
        if self._libraries:
            return
        if sys.platform != "linux":
            raise self.runtime.error(f"the {self.runtime.name} front door is for Linux, this is {sys.platform}")
        folder = self.folder()
        self._refuse_other_runtimes(folder)
        for soname in self._sonames:
            library = ctypes.CDLL(str(folder / soname), mode=ctypes.RTLD_GLOBAL)
            connect = library.simulated_device_set_dispatch
            connect.argtypes, connect.restype = [_DISPATCH], None
            connect(self._callback)
            # libraries' destructors call in after the interpreter is gone
            atexit.register(connect, _DISPATCH())
            self._libraries.append(library)

    def clear_last_error(self) -> None:
        """Forget this thread's latest error, as ``cudaGetLastError`` and ``hipGetLastError`` do."""
        for library in self._libraries:
            library[f"{self.runtime.prefix}GetLastError"]()
