"""Carry out a Dockerfile of this folder in a plain Debian root, on a machine without a Docker engine.

``python docker/rehearse.py cpu|rocm|cuda [--root DEBIAN] [--build-arg NAME=VALUE] [--without-check] [--keep FOLDER]``

Every instruction is executed: stages, ``COPY`` with .dockerignore, ``RUN`` in a chroot of its own mount and process
namespaces, at last the health check as the image's user. Two things are not the image's: Debian 12 (made by
``debootstrap``, or ``--root``) stands in for every base, and PyTorch comes from the package index that pip uses here.
Without a vendor's base and PyTorch there is nothing to compile kernels with, so the rocm and cuda images are rehearsed
as pure-Python packages; the program says so. Needs root, and util-linux's ``unshare``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

CONTEXT = Path(__file__).resolve().parents[1]
DEBIAN = "bookworm"
INDEX = "https://pypi.org/simple"
# What the rehearsal puts in the place of what a vendor's base would bring, and what that leaves out.
STAND_INS: dict[str, dict[str, str]] = {
    "cpu": {"TORCH_INDEX": INDEX},
    "rocm": {"TORCH_INDEX": INDEX, "BUILD_TARGET": "auto"},
    "cuda": {"TORCH_INDEX": INDEX, "BUILD_TARGET": "auto"},
}
LEFT_OUT = {
    "cpu": "nothing",
    "rocm": "PyTorch's ROCm build, the compilation of the CK kernels, everything that needs an AMD GPU",
    "cuda": "PyTorch's CUDA build, the compilation of CUDA kernels, everything that needs an NVIDIA GPU",
}
# Where a RUN finds programs before any ENV: what Docker gives it.
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Where a stage sees this machine's certificates and wheels.
_HOST_FILES = "/run/rehearsal/"


class RehearsalError(RuntimeError):
    """The Dockerfile cannot be carried out; the message says where and why."""


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile: its line, its name in capitals and its text, continuation lines joined."""

    line: int
    name: str
    text: str


@dataclass
class Stage:
    """A stage under way: its folder and what the instructions so far have set."""

    root: Path
    arguments: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    user: str = "0"
    folder: str = "/"
    health_check: list[str] | None = None


def parse(dockerfile: str) -> list[Instruction]:
    """The instructions of a Dockerfile; comments are dropped and lines that end in a backslash joined."""
    found: list[Instruction] = []
    text, first = "", 0
    for number, line in enumerate(dockerfile.splitlines(), start=1):
        if line.lstrip().startswith("#") or not (text or line.strip()):
            continue
        first = first if text else number
        text += line.strip()
        if text.endswith("\\"):
            text = text[:-1]
            continue
        name, _, rest = text.partition(" ")
        found.append(Instruction(first, name.upper(), rest.strip()))
        text = ""
    return found


def sent(context: Path, ignore: str) -> list[Path]:
    """The files of a context that .dockerignore lets through, relative to it; the last pattern that matches decides."""
    rules = []
    for line in ignore.splitlines():
        if pattern := line.strip():
            if pattern.startswith("#"):
                continue
            rules.append((_expression(pattern.removeprefix("!").strip("/")), pattern.startswith("!")))
    files = (path.relative_to(context) for path in sorted(context.rglob("*")) if path.is_file())
    return [path for path in files if _is_sent(path, rules)]


def _is_sent(path: Path, rules: Sequence[tuple[re.Pattern[str], bool]]) -> bool:
    """Whether the last rule that matches the path or a folder above it is an exception; without any, it is sent."""
    names = [path.as_posix(), *(parent.as_posix() for parent in path.parents)]
    return next((kept for rule, kept in reversed(rules) if any(map(rule.fullmatch, names))), True)


def _expression(pattern: str) -> re.Pattern[str]:
    """A pattern of .dockerignore: ``*`` and ``?`` stay within a name, ``**/`` is any number of folders."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(parts.get(part, re.escape(part)) for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern)))


class Rehearsal:
    """The stages of one Dockerfile, carried out one after the other below ``work``."""

    def __init__(self, debian: Path, work: Path, build_arguments: Mapping[str, str]) -> None:
        self._debian, self._work, self._given = debian, work, dict(build_arguments)
        self._global: dict[str, str] = {}
        self._stages: dict[str, Stage] = {}
        self._stage: Stage | None = None

    def run(self, instructions: Sequence[Instruction]) -> Stage:
        """Carry out all of them; returns the last stage."""
        for instruction in instructions:
            print(f"{instruction.line:3} {instruction.name} {instruction.text}", flush=True)
            started = time.perf_counter()
            self._carry_out(instruction)
            if instruction.name in ("FROM", "COPY", "RUN"):
                print(f"    {time.perf_counter() - started:.0f} s", flush=True)
        assert self._stage
        return self._stage

    def _carry_out(self, instruction: Instruction) -> None:
        name, text = instruction.name, instruction.text
        if name == "FROM":
            self._from(text)
        elif name == "ARG":
            self._argument(text)
        elif self._stage is None:
            raise RehearsalError(f"line {instruction.line}: {name} before the first FROM")
        elif name == "COPY":
            self._copy(self._stage, shlex.split(text))
        elif name == "RUN":
            # The shell expands the variables of a RUN, as in an image.
            variables = {**_network_settings(), **self._stage.arguments, **self._stage.environment}
            execute(self._stage, ["/bin/sh", "-c", text], variables)
        elif name == "ENV":
            self._stage.environment.update(_assignment(word) for word in shlex.split(text))
        elif name == "USER":
            self._stage.user = text
        elif name == "WORKDIR":
            self._stage.folder = text
            inside(self._stage.root, self._stage.folder).mkdir(parents=True, exist_ok=True)
        elif name == "HEALTHCHECK":
            self._stage.health_check = json.loads(text.split("CMD", 1)[1])
        elif name != "CMD":
            raise RehearsalError(f"line {instruction.line}: this program does not know {name}")

    def _from(self, text: str) -> None:
        base, _, name = text.partition(" AS ")
        root = self._work / name
        if root.exists():
            raise RehearsalError(f"{root} exists: give --keep a folder of its own")
        subprocess.run(["cp", "--archive", "--reflink=auto", self._debian, root], check=True)
        print(f"    Debian {DEBIAN} stands in for {Template(base).substitute(self._global)}")
        self._stage = self._stages[name] = Stage(root)

    def _argument(self, text: str) -> None:
        name, given, default = text.partition("=")
        known = self._global if self._stage is None else self._stage.arguments
        if name in self._given:
            known[name] = self._given[name]
            print(f"    {name}={self._given[name]}")
        elif given:
            known[name] = default

    def _copy(self, stage: Stage, words: list[str]) -> None:
        origin = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else None
        source, destination = words
        target = inside(stage.root, destination)
        target.parent.mkdir(parents=True, exist_ok=True)
        if origin is not None:
            found = inside(self._stages[origin].root, source)
            subprocess.run(["cp", "--archive", "--reflink=auto", found, target], check=True)
            return
        whole = source == "."
        files = [
            path
            for path in sent(CONTEXT, (CONTEXT / ".dockerignore").read_text(encoding="utf-8"))
            if whole or path.as_posix() == source
        ]
        if not files:
            raise RehearsalError(f"COPY {source}: .dockerignore lets nothing of it through")
        for path in files:
            place = target / path if whole else target
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CONTEXT / path, place)
        print(f"    {len(files)} files")


def inside(root: Path, path: str) -> Path:
    """A path of an image as one of this machine."""
    return root / path.lstrip("/")


def execute(stage: Stage, command: Sequence[str], variables: Mapping[str, str]) -> None:
    """Run a command in a stage, as its user and in its folder, with these variables and no other.

    Raises:
        RehearsalError: it failed.
    """
    script = [f"mount --rbind /dev {_quoted(stage.root / 'dev')}", f"mount -t proc proc {_quoted(stage.root / 'proc')}"]
    shown = {_HOST_FILES + name: path for name, path in _host_files().items()}
    for name, path in {"/etc/resolv.conf": Path("/etc/resolv.conf"), **shown}.items():
        place = inside(stage.root, name)
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            place.mkdir(exist_ok=True)
        else:
            place.touch()
        script.append(f"mount --bind {_quoted(path)} {_quoted(place)}")
    home = {"PATH": SEARCH_PATH, "HOME": "/root" if stage.user == "0" else stage.folder}
    assignments = [f"{name}={value}" for name, value in {**home, **variables}.items()]
    there = f"cd {_quoted(stage.folder)} && exec {shlex.join(command)}"
    inner = ["/usr/bin/env", "-i", *assignments, "/bin/sh", "-c", there]
    script.append(f"exec chroot --userspec={stage.user}:{stage.user} {_quoted(stage.root)} {shlex.join(inner)}")
    # The mounts are the namespace's own and vanish with it.
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", " && ".join(script)]
    code = subprocess.run(unshare, check=False).returncode
    if code:
        raise RehearsalError(f"exit code {code}: {shlex.join(command)}")


def check_health(image: Stage) -> str:
    """Run the health check as the image's user and say how it went; RehearsalError if it failed or there is none."""
    if image.health_check is None:
        raise RehearsalError("the last stage has no HEALTHCHECK")
    print(f"health check: {shlex.join(image.health_check)}", flush=True)
    started = time.perf_counter()
    execute(image, image.health_check, image.environment)
    return f"exit code 0 after {time.perf_counter() - started:.0f} s"


def _quoted(word: object) -> str:
    return shlex.quote(str(word))


def _assignment(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    return name, value


def _network_settings() -> dict[str, str]:
    """How pip and apt reach packages on this machine; a build on it would be told the same."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.endswith("_proxy")}
    return {**settings, **{name: _HOST_FILES + name for name in _host_files()}}


def _host_files() -> dict[str, Path]:
    """The file or folder of this machine that each of pip's settings names, if it is one."""
    named = {name: Path(os.environ[name]) for name in ("PIP_CERT", "PIP_FIND_LINKS") if name in os.environ}
    return {name: path for name, path in named.items() if path.exists()}


def make_debian(root: Path) -> None:
    """A minimal Debian, as ``debian:bookworm-slim`` has it."""
    if shutil.which("debootstrap") is None:
        raise RehearsalError("debootstrap is missing: apt-get install debootstrap, or give --root a Debian root")
    mirror = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
    subprocess.run(["debootstrap", "--variant=minbase", DEBIAN, root, mirror], check=True, stdout=subprocess.DEVNULL)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("image", choices=sorted(STAND_INS))
    parser.add_argument("--root", type=Path, help=f"a Debian {DEBIAN} root (default: made by debootstrap)")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE", help="as in docker build")
    parser.add_argument("--without-check", action="store_true", help="leave out the health check, which takes minutes")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the stages here (default: removed)")
    return parser.parse_args()


def main() -> int:
    """Command line; 0 when every step and the health check passed."""
    options = _options()
    if os.geteuid() != 0:
        print("rehearse: chroot and mounts need root", file=sys.stderr)
        return 2
    given = {**STAND_INS[options.image], **dict(map(_assignment, options.build_arg))}
    dockerfile = Path(__file__).with_name(f"{options.image}.Dockerfile")
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as temporary:
        work = options.keep or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        try:
            debian = options.root or work / "debian"
            if options.root is None:
                make_debian(debian)
            image = Rehearsal(debian, work, given).run(parse(dockerfile.read_text(encoding="utf-8")))
            checked = "not run" if options.without_check else check_health(image)
        except (RehearsalError, subprocess.CalledProcessError) as error:
            print(f"rehearsal of the {options.image} image FAILED: {error}", file=sys.stderr)
            return 1
        size = subprocess.run(["du", "-sm", image.root], check=True, capture_output=True, text=True).stdout.split()[0]
        left_out = LEFT_OUT[options.image]
        print(f"rehearsed the {options.image} image, {size} MB; health check: {checked}; left out: {left_out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
