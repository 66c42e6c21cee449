"""Builds the stand-in for libcudart.so with the machine's C compiler, once, and loads it."""

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

import ptx_sim.cuda.device_calls
import ptx_sim.cuda.driver_calls
import ptx_sim.cuda.launch_calls
import ptx_sim.cuda.memory_calls
from ptx_sim.cuda.runtime import RUNTIME
from ptx_sim.errors import PtxError

_ = ptx_sim.cuda  # the modules above are imported for the calls that they register

SONAME = "libcudart.so.13"
_SOURCE = Path(__file__).with_name("libcudart.c")
_VERSIONS = Path(__file__).with_name("libcudart.map")
_DISPATCH = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_char_p, ctypes.POINTER(ctypes.c_ssize_t))


def _compiler() -> list[str]:
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return [found]
    raise PtxError("the CUDA front door needs a C compiler: install gcc or clang, or set CC")


@functools.cache
def library_folder() -> Path:
    """The folder with the stand-in, also as ``libcudart.so`` for ``-L``; built on first use, then cached.

    The cache is ``$XDG_CACHE_HOME/ptx_sim`` (default ~/.cache). PtxError if it cannot be built.
    """
    command = [*_compiler(), "-std=gnu11", "-O1", "-fPIC", "-shared", "-Wall", "-Werror", str(_SOURCE),
               f"-Wl,--version-script={_VERSIONS}", f"-Wl,-soname,{SONAME}"]  # fmt: skip
    content = "\0".join([*command, _SOURCE.read_text(), _VERSIONS.read_text()])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ptx_sim"
    folder = cache / f"cuda-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as parent:
        made = Path(parent) / "made"
        made.mkdir()
        build = [*command, "-o", str(made / SONAME)]
        result = subprocess.run(build, capture_output=True, text=True, check=False)
        if result.returncode:
            raise PtxError(f"building the CUDA stand-in failed: {shlex.join(build)}\n{result.stderr}")
        (made / "libcudart.so").symlink_to(SONAME)
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
        if "libcudart" in path and Path(path).parent != folder:
            raise PtxError(f"{path} is loaded already: the simulated device needs a process without it")


@functools.cache
def load_library() -> None:
    """Load the stand-in so that libraries loaded later find it, and connect it to the runtime's state."""
    folder = library_folder()
    _refuse_other_runtimes(folder)
    callback = _DISPATCH(RUNTIME.dispatch)
    library = ctypes.CDLL(str(folder / SONAME), mode=ctypes.RTLD_GLOBAL)
    connect = library.ptx_sim_set_dispatch
    connect.argtypes, connect.restype = [_DISPATCH], None
    connect(callback)
    # libraries' destructors call in after the interpreter is gone
    atexit.register(connect, _DISPATCH())
    _LIBRARIES.append(library)
    _CALLBACKS.append(callback)


def clear_last_error() -> None:
    """Forget this thread's latest error, as ``cudaGetLastError`` does."""
    for library in _LIBRARIES:
        library.cudaGetLastError()


_LIBRARIES: list[ctypes.CDLL] = []
# what C code calls must stay alive
_CALLBACKS: list[object] = []
