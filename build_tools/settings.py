"""The environment variables of the build: the only build-time reader of ``os.environ``.

:data:`VARIABLES` is the one table of them; :class:`Settings` holds their values.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .errors import BuildError
from .instances import PRESETS, Preset

BuildTarget = Literal["auto", "cuda", "rocm"]

TRUE_WORDS = ("1", "true", "yes", "on")
FALSE_WORDS = ("0", "false", "no", "off")


@dataclass(frozen=True)
class Variable:
    """One environment variable of the build; ``field`` is its name in :class:`Settings`."""

    name: str
    field: str
    type: str
    default: str
    doc: str
    accepts: str
    parse: Callable[[str], object]
    alias: str | None = None


def _parse_bool(text: str) -> bool:
    word = text.lower()
    if word not in TRUE_WORDS + FALSE_WORDS:
        raise ValueError
    return word in TRUE_WORDS


def _parse_target(text: str) -> str:
    word = text.lower()
    if word not in ("auto", "cuda", "rocm"):
        raise ValueError
    return word


def _parse_preset(text: str) -> str:
    word = text.lower()
    if word not in PRESETS:
        raise ValueError
    return word


def _parse_positive(text: str) -> int:
    if not re.fullmatch(r"[0-9]+", text) or int(text) == 0:
        raise ValueError
    return int(text)


def _items(text: str) -> list[str]:
    return [item.strip() for item in re.split(r"[;,]", text) if item.strip()]


def _parse_gpu_archs(text: str) -> tuple[str, ...]:
    """Return AMD architectures without repeats; ``native`` stands for the cards of this machine, as ()."""
    archs = tuple(dict.fromkeys(item.lower() for item in _items(text)))
    if archs == ("native",):
        return ()
    if not archs or not all(re.fullmatch(r"gfx[0-9]+[0-9a-f]{2}(:[a-z]+[+-])*", arch) for arch in archs):
        raise ValueError
    return archs


def _parse_cuda_archs(text: str) -> tuple[str, ...]:
    archs = tuple(dict.fromkeys(item.lower().removeprefix("sm_") for item in _items(text)))
    matches = [re.fullmatch(r"([0-9]{2,3})[af]?", arch) for arch in archs]
    if not matches or not all(match and int(match.group(1)) >= 80 for match in matches):
        raise ValueError
    return archs


def _parse_head_dims(text: str) -> tuple[int, ...]:
    dims = tuple(sorted({_parse_positive(item) for item in _items(text)}))
    if not dims or dims[-1] > 512:
        raise ValueError
    return dims


def _parse_local_version(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]+(\.[a-z0-9]+)*", text):
        raise ValueError
    return text


def _parse_folder(text: str) -> Path:
    return Path(text).expanduser()


def _switch(name: str, field: str, doc: str) -> Variable:
    accepts = f"{'/'.join(TRUE_WORDS)} or {'/'.join(FALSE_WORDS)}"
    return Variable(name, field, "bool", "false", doc, accepts, _parse_bool)


def _preset(name: str, field: str, kernels: str) -> Variable:
    doc = f"How many {kernels} kernels to build: minimal is for trying it, full has every combination of features."
    return Variable(name, field, "word", "default", doc, "minimal, default or full", _parse_preset)


def _folder(name: str, field: str, default: str, doc: str, alias: str | None = None) -> Variable:
    return Variable(name, field, "path", default, doc, "a folder", _parse_folder, alias)


def _count(name: str, field: str, default: str, doc: str) -> Variable:
    return Variable(name, field, "int", default, doc, "a whole number from 1", _parse_positive)


VARIABLES: tuple[Variable, ...] = (
    Variable(
        name="BUILD_TARGET",
        field="build_target",
        type="word",
        default="auto",
        doc="Vendor to build native kernels for; naming one makes it an error when it cannot be built.",
        accepts="auto, cuda or rocm",
        parse=_parse_target,
    ),
    _switch(
        "FLASH_ATTENTION_FORCE_BUILD",
        "force_build",
        "Fail when no native kernels can be built, instead of going without.",
    ),
    _switch(
        "FLASH_ATTENTION_SKIP_CUDA_BUILD",
        "skip_native_build",
        "Build no native kernels for any vendor: a pure-Python package.",
    ),
    _switch(
        "FLASH_ATTENTION_TRITON_AMD_ENABLE",
        "triton_on_amd",
        "Use Triton on AMD: build no CK kernels. Read at run time too.",
    ),
    Variable(
        name="GPU_ARCHS",
        field="gpu_archs",
        type="list",
        default="native",
        doc="AMD architectures to build for; native means the cards here, else all that CK serves.",
        accepts="native, or AMD architectures separated by ';' such as gfx90a;gfx942",
        parse=_parse_gpu_archs,
    ),
    Variable(
        name="FLASH_ATTN_CUDA_ARCHS",
        field="cuda_archs",
        type="list",
        default="80;90;100;120",
        doc="NVIDIA architectures to build for; of the default, those that nvcc knows.",
        accepts="NVIDIA architectures from 80 separated by ';' such as 80;90",
        parse=_parse_cuda_archs,
    ),
    Variable(
        name="OPT_DIM",
        field="head_dims",
        type="list",
        default="32,64,128,256",
        doc="Head dimensions that native kernels are built for.",
        accepts="head dimensions from 1 to 512 separated by ',' such as 64,128",
        parse=_parse_head_dims,
    ),
    _preset("FLASH_ATTENTION_CK_PRESET", "ck_preset", "CK"),
    _preset("FLASH_ATTENTION_CUDA_PRESET", "cuda_preset", "CUDA"),
    _count("MAX_JOBS", "max_jobs", "by cores and memory", "Compilations at a time."),
    _count(
        "NVCC_THREADS",
        "nvcc_threads",
        "1",
        "Architectures one nvcc compiles at a time; each needs its own memory.",
    ),
    _folder(
        "CUDA_HOME",
        "cuda_home",
        "the toolkit of nvcc on PATH, else /usr/local/cuda",
        "CUDA toolkit.",
        alias="CUDA_PATH",
    ),
    _folder(
        "ROCM_PATH",
        "rocm_path",
        "the ROCm of hipcc on PATH, else /opt/rocm",
        "ROCm.",
        alias="ROCM_HOME",
    ),
    _folder("CUTLASS_DIR", "cutlass_dir", "the headers of package nvidia-cutlass", "CUTLASS checkout."),
    _folder("CK_DIR", "ck_dir", "the headers in ROCM_PATH, else in package amd-aiter", "composable_kernel checkout."),
    Variable(
        name="FLASH_ATTN_LOCAL_VERSION",
        field="local_version",
        type="word",
        default="none",
        doc="Appended to the local part of a wheel's version.",
        accepts="lower-case letters and digits, in parts separated by '.'",
        parse=_parse_local_version,
    ),
)


@dataclass(frozen=True)
class Settings:
    """What the environment asks of the build; :data:`VARIABLES` documents each field.

    An empty ``gpu_archs`` or ``cuda_archs`` stands for the default. ``search_path`` is PATH.
    """

    build_target: BuildTarget = "auto"
    force_build: bool = False
    skip_native_build: bool = False
    triton_on_amd: bool = False
    gpu_archs: tuple[str, ...] = ()
    cuda_archs: tuple[str, ...] = ()
    head_dims: tuple[int, ...] = (32, 64, 128, 256)
    ck_preset: Preset = "default"
    cuda_preset: Preset = "default"
    max_jobs: int | None = None
    nvcc_threads: int = 1
    cuda_home: Path | None = None
    rocm_path: Path | None = None
    cutlass_dir: Path | None = None
    ck_dir: Path | None = None
    local_version: str | None = None
    search_path: str = os.defpath

    @classmethod
    def from_environment(
        cls, env: Mapping[str, str] | None = None, overrides: Mapping[str, str] | None = None
    ) -> "Settings":
        """Read the build variables; one that is unset or blank has its default.

        Args:
            env: the environment; ``os.environ`` by default.
            overrides: values in place of the environment's.

        Raises:
            BuildError: a value does not parse; the message names the variable, what came, what is accepted.
        """
        env = {**(os.environ if env is None else env), **(overrides or {})}
        values: dict[str, Any] = {"search_path": env.get("PATH", os.defpath)}
        for variable in VARIABLES:
            name, text = _lookup(env, variable)
            if not text:
                continue
            try:
                values[variable.field] = variable.parse(text)
            except ValueError:
                raise BuildError(f"{name}={text!r} is not understood: expected {variable.accepts}") from None
        return cls(**values)

    def changed(self) -> dict[str, object]:
        """Return the values that differ from their defaults, by environment variable."""
        defaults = Settings()
        return {
            variable.name: getattr(self, variable.field)
            for variable in VARIABLES
            if getattr(self, variable.field) != getattr(defaults, variable.field)
        }


def _lookup(env: Mapping[str, str], variable: Variable) -> tuple[str, str]:
    """Return the name and text that are in force: the variable's own, else its alias's, else blank."""
    for name in (variable.name, variable.alias):
        text = env.get(name, "").strip() if name else ""
        if name and text:
            return name, text
    return variable.name, ""
