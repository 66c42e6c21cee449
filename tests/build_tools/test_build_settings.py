import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from build_tools.errors import BuildError
from build_tools.settings import VARIABLES, Settings, Variable

ROOT = Path(__file__).resolve().parents[2]


def test_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_environment({}) == Settings()


def test_blank_values_count_as_unset() -> None:
    assert Settings.from_environment({v.name: " " for v in VARIABLES}) == Settings()


def test_the_table_documents_every_field_once() -> None:
    documented = [variable.field for variable in VARIABLES]
    assert sorted(documented) == sorted(f.name for f in fields(Settings) if f.name != "search_path")
    names = [name for v in VARIABLES for name in (v.name, v.alias) if name]
    assert len(names) == len(set(names))
    assert all(v.doc and v.accepts and v.default and v.type for v in VARIABLES)


@pytest.mark.parametrize(
    "variable",
    [v for v in VARIABLES if v.type == "bool" or v.name in ("BUILD_TARGET", "GPU_ARCHS", "OPT_DIM", "NVCC_THREADS")],
    ids=lambda variable: variable.name,
)
def test_a_documented_default_that_is_a_value_is_the_default(variable: Variable) -> None:
    assert variable.parse(variable.default) == getattr(Settings(), variable.field)


@pytest.mark.parametrize("word", ["1", "true", "TRUE", "Yes", "on", " on "])
def test_booleans_that_are_true(word: str) -> None:
    assert Settings.from_environment({"FLASH_ATTENTION_FORCE_BUILD": word}).force_build is True


@pytest.mark.parametrize("word", ["0", "false", "FALSE", "No", "off"])
def test_booleans_that_are_false(word: str) -> None:
    assert Settings.from_environment({"FLASH_ATTENTION_FORCE_BUILD": word}).force_build is False


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("BUILD_TARGET", "ROCm", "build_target", "rocm"),
        ("FLASH_ATTENTION_SKIP_CUDA_BUILD", "TRUE", "skip_native_build", True),
        ("FLASH_ATTENTION_TRITON_AMD_ENABLE", "TRUE", "triton_on_amd", True),
        ("GPU_ARCHS", "gfx942; gfx90a;gfx942", "gpu_archs", ("gfx942", "gfx90a")),
        ("GPU_ARCHS", "gfx90a:sramecc+:xnack-", "gpu_archs", ("gfx90a:sramecc+:xnack-",)),
        ("GPU_ARCHS", "native", "gpu_archs", ()),
        ("FLASH_ATTN_CUDA_ARCHS", "80;sm_90a", "cuda_archs", ("80", "90a")),
        ("OPT_DIM", "128,64", "head_dims", (64, 128)),
        ("MAX_JOBS", "3", "max_jobs", 3),
        ("NVCC_THREADS", "4", "nvcc_threads", 4),
        ("CUDA_HOME", "/c", "cuda_home", Path("/c")),
        ("CUDA_PATH", "/c", "cuda_home", Path("/c")),
        ("ROCM_PATH", "/r", "rocm_path", Path("/r")),
        ("ROCM_HOME", "/r", "rocm_path", Path("/r")),
        ("CK_DIR", "/k", "ck_dir", Path("/k")),
        ("CUTLASS_DIR", "/k", "cutlass_dir", Path("/k")),
        ("FLASH_ATTN_LOCAL_VERSION", "rocm70", "local_version", "rocm70"),
    ],
)
def test_values(name: str, text: str, field: str, value: object) -> None:
    settings = Settings.from_environment({name: text})
    assert getattr(settings, field) == value
    unchanged = [f.name for f in fields(Settings) if f.name != field]
    assert all(getattr(settings, f) == getattr(Settings(), f) for f in unchanged)


def test_a_variable_wins_over_its_alias() -> None:
    settings = Settings.from_environment({"CUDA_HOME": "/a", "CUDA_PATH": "/b"})
    assert settings.cuda_home == Path("/a")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("BUILD_TARGET", "hip"),
        ("FLASH_ATTENTION_FORCE_BUILD", "maybe"),
        ("FLASH_ATTENTION_SKIP_CUDA_BUILD", "2"),
        ("GPU_ARCHS", "gfx942;native"),
        ("GPU_ARCHS", "mi300"),
        ("GPU_ARCHS", ";"),
        ("FLASH_ATTN_CUDA_ARCHS", "75"),
        ("FLASH_ATTN_CUDA_ARCHS", "8.0"),
        ("OPT_DIM", "64,1024"),
        ("OPT_DIM", "0"),
        ("OPT_DIM", "64,x"),
        ("MAX_JOBS", "0"),
        ("MAX_JOBS", "-1"),
        ("MAX_JOBS", "4.5"),
        ("NVCC_THREADS", "many"),
        ("FLASH_ATTN_LOCAL_VERSION", "a_b!"),
    ],
)
def test_malformed_values_name_variable_value_and_what_is_accepted(name: str, text: str) -> None:
    accepts = next(v.accepts for v in VARIABLES if v.name == name)
    with pytest.raises(BuildError, match=re.escape(f"{name}={text!r}")) as error:
        Settings.from_environment({name: text})
    assert accepts in str(error.value)


def test_changed_lists_what_differs_from_the_defaults() -> None:
    settings = Settings.from_environment({"MAX_JOBS": "3", "BUILD_TARGET": "auto", "PATH": "/x"})
    assert settings.changed() == {"MAX_JOBS": 3}


def test_only_settings_reads_the_environment() -> None:
    sources = {path.name: path.read_text() for path in (ROOT / "build_tools").glob("*.py")}
    assert [name for name, text in sources.items() if re.search(r"\benviron\b|getenv", text)] == ["settings.py"]


def test_importing_the_build_needs_neither_torch_nor_flash_attn() -> None:
    code = (
        "import sys; sys.modules.update(torch=None, flash_attn=None); "
        "import build_tools.__main__, build_tools.distribution"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env={"PATH": os.defpath})
