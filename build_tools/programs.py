"""Find a program and ask it for its version."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Program:
    """A program that was found; ``version`` is None when it would not say, and ``problem`` tells why."""

    path: Path
    version: str | None
    problem: str | None = None


def find(name: str, search_path: str) -> Path | None:
    """Return the program of that name in a PATH-like list of folders, or None."""
    found = shutil.which(name, path=search_path)
    return Path(found) if found else None


def run(*command: str | Path) -> tuple[str, str | None]:
    """Run a short command and return (stdout and stderr together, why it failed or None)."""
    try:
        done = subprocess.run(
            [str(word) for word in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=TIMEOUT_SECONDS,
            text=True,
            errors="replace",
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    if done.returncode != 0:
        return done.stdout, f"{command[0]} exited {done.returncode}: {done.stdout.strip()[-200:]}"
    return done.stdout, None


def probe(path: Path, version_pattern: str) -> Program:
    """Run ``path --version`` and read the version from the pattern's first group."""
    output, problem = run(path, "--version")
    match = re.search(version_pattern, output)
    if problem is None and match is None:
        problem = f"{path} --version names no version"
    return Program(path, match.group(1) if match and not problem else None, problem)


def version_numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: ``"2.11.0+cu130"`` gives (2, 11, 0)."""
    match = re.match(r"[0-9]+(\.[0-9]+)*", version)
    return tuple(int(number) for number in match.group().split(".")) if match else ()
