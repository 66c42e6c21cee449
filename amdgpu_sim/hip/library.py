"""Builds the stand-in for libamdhip64.so with the machine's C compiler, once, and loads it."""

from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import amdgpu_sim.hip.device_calls
import amdgpu_sim.hip.memory_calls
import amdgpu_sim.hip.module_calls
import amdgpu_sim.hip.stream_calls
from amdgpu_sim.errors import SimulatorError
from amdgpu_sim.hip.runtime import RUNTIME

_ = amdgpu_sim.hip  # the modules above are imported for the calls that they register

# ROCm 7 and 6; programs name one of them
SONAMES = ("libamdhip64.so.7", "libamdhip64.so.6")
_SOURCE, _VERSIONS = Path(__file__).with_name("libamdhip64.c"), Path(__file__).with_name("libamdhip64.map")
_DISPATCH = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_char_p, ctypes.POINTER(ctypes.c_ssize_t))


def _compiler() -> list[str]:
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return [found]
    raise SimulatorError("the HIP front door needs a C compiler: install gcc or clang, or set CC")


@functools.cache
def library_folder() -> Path:
    """The folder with the stand-in, also as ``libamdhip64.so`` for ``-L``; built on first use, then cached.

    The cache is ``$XDG_CACHE_HOME/amdgpu_sim`` (default ~/.cache). SimulatorError if it cannot be built.
    """
    command = [*_compiler(), "-std=gnu11", "-O1", "-fPIC", "-shared", "-Wall", "-Werror", str(_SOURCE),
               f"-Wl,--version-script={_VERSIONS}"]  # fmt: skip
    content = "\0".join([*command, _SOURCE.read_text(), _VERSIONS.read_text()])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "amdgpu_sim"
    folder = cache / f"hip-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as parent:
        made = Path(parent) / "made"
        made.mkdir()
        for soname in SONAMES:
            build = [*command, f"-Wl,-soname,{soname}", "-o", str(made / soname)]
            result = subprocess.run(build, capture_output=True, text=True, check=False)
            if result.returncode:
                raise SimulatorError(f"building the HIP stand-in failed: {shlex.join(build)}\n{result.stderr}")
        (made / "libamdhip64.so").symlink_to(SONAMES[0])
        try:
            made.rename(folder)
        except OSError:  # another process was faster
            if not folder.is_dir():
                raise
    return folder


def _refuse_other_runtimes(folder: Path) -> None:
    """A process that has the real runtime loaded would mix both."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split(maxsplit=5)[-1]
        if "libamdhip64" in path and Path(path).parent != folder:
            raise SimulatorError(f"{path} is loaded already: the simulated device needs a process without it")


@functools.cache
def load_library() -> None:
    """Load the stand-in so that libraries loaded later find it, and connect it to the runtime's state."""
    folder = library_folder()
    _refuse_other_runtimes(folder)
    callback = _DISPATCH(RUNTIME.dispatch)
    for soname in SONAMES:
        library = ctypes.CDLL(str(folder / soname), mode=ctypes.RTLD_GLOBAL)
        connect = library.amdgpu_sim_set_dispatch
        connect.argtypes, connect.restype = [_DISPATCH], None
        connect(callback)
        _LIBRARIES.append(library)
        # libraries' destructors call in after the interpreter is gone
        atexit.register(connect, _DISPATCH())
    _CALLBACKS.append(callback)


def clear_last_error() -> None:
    """Forget this thread's latest error, as ``hipGetLastError`` does."""
    for library in _LIBRARIES:
        library.hipGetLastError()


_LIBRARIES: list[ctypes.CDLL] = []
# what C code calls must stay alive
_CALLBACKS: list[object] = []
