"""Write a ``build.ninja`` and run it, saying how far it is and how long the rest will take."""

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import BuildError

_FINISHED = "@finished@"


@dataclass(frozen=True)
class Rule:
    """A command; ``$in`` and ``$out`` stand for an edge's files, ``depfile`` for headers that it reads."""

    name: str
    command: Sequence[str | Path]
    depfile: bool = False


@dataclass(frozen=True)
class Edge:
    """One output, made by a rule from its inputs. ``seconds`` is an estimate of one core's time."""

    rule: str
    output: Path
    inputs: Sequence[Path]
    seconds: float
    variables: Mapping[str, str] | None = None
    implicit: Sequence[Path] = ()


def escape(text: object) -> str:
    """Return a path or word as ninja reads it."""
    return re.sub(r"([$: ])", r"$\1", str(text))


def ninja_text(rules: Sequence[Rule], edges: Sequence[Edge]) -> str:
    """Return the file's content. Compilers' messages are shown only when there are any."""
    lines = ["ninja_required_version = 1.5"]
    for rule in rules:
        words = [str(word) for word in rule.command]
        lines += [f"rule {rule.name}", f"  command = {' '.join(_shell(word) for word in words)}"]
        lines += ["  depfile = $out.d", "  deps = gcc"] if rule.depfile else []
        lines += [f"  description = {_FINISHED} $number"]
    for number, edge in enumerate(edges):
        inputs = " ".join(escape(path) for path in edge.inputs)
        implicit = " | " + " ".join(escape(path) for path in edge.implicit) if edge.implicit else ""
        lines.append(f"build {escape(edge.output)}: {edge.rule} {inputs}{implicit}")
        lines += [f"  {name} = {value}" for name, value in {"number": number, **(edge.variables or {})}.items()]
    return "\n".join(lines) + "\n"


def _shell(word: str) -> str:
    """Quote a word for the shell unless it is made of plain characters or names a ninja variable."""
    return word if re.fullmatch(r"[\w@%+=:,./$-]+", word) else shlex.quote(word).replace("$", "$$")


def run_ninja(
    ninja: Path,
    folder: Path,
    edges: Sequence[Edge],
    jobs: int,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
) -> None:
    """Run ``folder/build.ninja`` and print a line for each output made, with the time that is left.

    Raises:
        BuildError: a command failed; its output has been printed.
    """
    command = ["env", "NINJA_STATUS=", str(ninja), "-C", str(folder), "-j", str(jobs)]
    todo = _edges_to_run(command)
    if not todo:
        say(f"nothing to compile in {folder}")
        return
    total, left = sum(edges[number].seconds for number in todo), set(todo)
    say(f"compiling {len(todo)} of {len(edges)} files, {jobs} at a time: about {_duration(total / jobs)}")
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        assert run.stdout
        for line in run.stdout:
            if not line.startswith(_FINISHED):
                sys.stdout.write(line)
                continue
            number = int(line.removeprefix(_FINISHED))
            left.discard(number)
            remaining = sum(edges[number].seconds for number in left)
            elapsed = time.monotonic() - started
            rest = (
                f"{_duration(elapsed * remaining / (total - remaining))} left"
                if left
                else f"{_duration(elapsed)} in all"
            )
            say(f"[{len(todo) - len(left)}/{len(todo)}] {edges[number].output.name}, {rest}")
    if run.returncode != 0:
        raise BuildError(f"ninja failed in {folder}: the failing command and its output are above")


def _edges_to_run(command: Sequence[str]) -> list[int]:
    """Return the numbers of the edges that a run would make."""
    dry = subprocess.run([*command, "-n"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if dry.returncode != 0:
        raise BuildError(f"ninja does not accept its file: {dry.stdout.strip()[-500:]}")
    return [int(line.removeprefix(_FINISHED)) for line in dry.stdout.splitlines() if line.startswith(_FINISHED)]


def _duration(seconds: float) -> str:
    """Return ``50 s``, ``12 min`` or ``2 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
