"""What PyTorch is installed, read from its ``version.py`` without importing it.

An isolated build has no torch on ``sys.path``, but under pip it runs in the user's own interpreter, whose
site-packages are looked at too.
"""

import ast
import site
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Vendor = Literal["cuda", "rocm"]


@dataclass(frozen=True)
class TorchBuild:
    """An installed PyTorch: its folder, version, and the CUDA or HIP version it was built with."""

    path: Path
    version: str
    cuda: str | None
    hip: str | None

    @property
    def vendor(self) -> Vendor | None:
        """``cuda``, ``rocm``, or None for a CPU build."""
        if self.hip:
            return "rocm"
        return "cuda" if self.cuda else None


def python_folders() -> tuple[Path, ...]:
    """Return the folders that hold Python packages: ``sys.path``, site-packages, the user's own packages."""
    folders = [*sys.path, sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return tuple(dict.fromkeys(Path(folder) for folder in folders if folder))


def find_torch(folders: Iterable[Path]) -> TorchBuild | None:
    """Return the first PyTorch in these folders, or None."""
    for folder in folders:
        version_file = folder / "torch" / "version.py"
        if version_file.is_file():
            values = _string_constants(version_file)
            if "__version__" in values:
                return TorchBuild(version_file.parent, values["__version__"], values.get("cuda"), values.get("hip"))
    return None


def _string_constants(source: Path) -> dict[str, str]:
    """Return the module-level names that are bound to a string literal."""
    constants: dict[str, str] = {}
    for statement in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        else:
            continue
        if isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str):
            constants.update({t.id: statement.value.value for t in targets if isinstance(t, ast.Name)})
    return constants
