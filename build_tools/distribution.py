"""What the distribution consists of: version, packages, package data."""

import ast
from pathlib import Path
from typing import Any

from setuptools import find_packages

from .commands import BuildPackage, BuildWheel
from .errors import BuildError
from .settings import Settings


def setup_arguments(root: Path, settings: Settings) -> dict[str, Any]:
    """Return the arguments of ``setuptools.setup`` that pyproject.toml cannot express."""
    kernels = [f"flash_attn.triton_amd.{name}" for name in find_packages(str(root / "triton_amd"))]
    return {
        "version": distribution_version(root, settings.local_version),
        "packages": [
            *find_packages(str(root), include=["flash_attn", "flash_attn.*"]),
            "flash_attn.triton_amd",
            *kernels,
        ],
        "package_dir": {"flash_attn.triton_amd": "triton_amd"},
        "package_data": {"flash_attn": ["py.typed"], "flash_attn.triton_amd": ["configs/*.json"]},
        "py_modules": ["flash_attn_2_cuda"],
        "cmdclass": {"build_py": BuildPackage, "bdist_wheel": BuildWheel},
    }


def package_version(root: Path) -> str:
    """Return the literal ``flash_attn.__version__`` of the source tree, without importing it."""
    source = root / "flash_attn" / "__init__.py"
    for statement in ast.parse(source.read_text(encoding="utf-8")).body:
        if (
            isinstance(statement, ast.Assign)
            and any(isinstance(target, ast.Name) and target.id == "__version__" for target in statement.targets)
            and isinstance(statement.value, ast.Constant)
            and isinstance(statement.value.value, str)
        ):
            return statement.value.value
    raise BuildError(f"{source} assigns no string literal to __version__")


def distribution_version(root: Path, local_version: str | None) -> str:
    """Return the version of the package with FLASH_ATTN_LOCAL_VERSION appended to its local part."""
    version = package_version(root)
    if local_version is None:
        return version
    return f"{version}{'.' if '+' in version else '+'}{local_version}"
