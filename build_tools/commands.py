"""The build command: plan, say so, and keep the plan in the built package."""

import json
import shutil
import sys
from pathlib import Path

from setuptools.command.bdist_wheel import bdist_wheel, get_platform
from setuptools.command.build_py import build_py

from .ck_build import CkBuild
from .cuda_build import CudaBuild
from .detect import detect
from .errors import BuildError
from .native_build import LIBRARIES, NativeBuild, compile_extension
from .plan import BuildPlan, decide, vendors_with_kernels
from .report import describe_detection, describe_plan, metadata
from .settings import Settings

ROOT = Path(__file__).resolve().parent.parent
METADATA_FILE = "_build_metadata.json"


class BuildPackage(build_py):
    """``build_py`` that also writes ``flash_attn/_build_metadata.json``.

    An editable install runs from the source tree, so there the file is written beside the package, where git
    ignores it.
    """

    def run(self) -> None:
        """Decide what to build, copy the package from a clean slate, and keep the decision in it."""
        try:
            self._build()
        except (BuildError, OSError) as error:
            # An editable install would only warn about any other exception from here, and go on.
            raise SystemExit(f"error: {error}") from error

    def _build(self) -> None:
        settings = Settings.from_environment()
        if self.editable_mode and settings.local_version:
            raise BuildError(
                f"FLASH_ATTN_LOCAL_VERSION={settings.local_version!r} cannot apply to an editable install, "
                "whose version is the source tree's: unset it"
            )
        detection = detect(settings)
        plan = decide(settings, detection, vendors_with_kernels(ROOT))
        print("found", describe_detection(detection), "plan", describe_plan(plan), sep="\n", flush=True)
        warn_on_terminal(plan)

        source = ROOT / "flash_attn"
        package = source if self.editable_mode else Path(self.build_lib).resolve() / "flash_attn"
        if package != source and package.is_dir():
            # setuptools copies over what an earlier build left, which would ship modules deleted since.
            shutil.rmtree(package)
        super().run()
        if plan.target != "none":
            compile_extension(extension_build(plan, package / LIBRARIES[plan.target]), detection)

        version = self.distribution.get_version()
        if settings.local_version:
            _set_version(package / "__init__.py", version)
        written = {"version": version, "editable": self.editable_mode, **metadata(settings, detection, plan)}
        (package / METADATA_FILE).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def extension_build(plan: BuildPlan, output: Path) -> NativeBuild:
    """Return the build of what the plan says into ``output``; objects stay in build/ for the next time."""
    assert plan.preset
    assert plan.jobs
    if plan.target == "rocm":
        return CkBuild(plan.archs, plan.head_dims, plan.preset, ROOT / "build" / "ck", output, plan.jobs)
    folder = ROOT / "build" / "cuda"
    return CudaBuild(plan.archs, plan.head_dims, plan.preset, folder, output, plan.jobs, threads=plan.threads)


class BuildWheel(bdist_wheel):
    """``bdist_wheel`` whose tag tells of native kernels: bound to the platform, but to no Python version."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return ``py3-none-any`` of a pure package, else ``py3-none-PLATFORM``."""
        package = Path(self.bdist_dir) / "flash_attn"
        if not any((package / library).is_file() for library in LIBRARIES.values()):
            return "py3", "none", "any"
        return "py3", "none", get_platform(self.bdist_dir).replace("-", "_").replace(".", "_")


def warn_on_terminal(plan: BuildPlan) -> None:
    """Write warnings to the terminal itself, if there is one: pip hides a build's output unless it fails."""
    if not plan.warnings or sys.stdout.isatty():
        return
    try:
        with open("/dev/tty", "w", encoding="utf-8") as terminal:
            terminal.writelines(f"flash-attn build: warning: {warning}\n" for warning in plan.warnings)
    except OSError:
        return  # no terminal; standard output has the warnings


def _set_version(module: Path, version: str) -> None:
    """Make ``__version__`` of the built package the version of the distribution."""
    lines = module.read_text(encoding="utf-8").splitlines(keepends=True)
    changed = [f'__version__ = "{version}"\n' if line.startswith("__version__ =") else line for line in lines]
    module.write_text("".join(changed), encoding="utf-8")
