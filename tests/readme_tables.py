"""The generated tables of README.md; ``python -m tests.readme_tables`` rewrites them in place."""

from __future__ import annotations

import re
from pathlib import Path

from build_tools import settings
from flash_attn import environment
from flash_attn.diagnostics.support import support_matrix
from flash_attn.diagnostics.text_table import markdown_table

README = Path(__file__).resolve().parents[1] / "README.md"


def environment_tables() -> str:
    """The variables that are read at run time, then those that are read by the build."""
    run_time = [[f"`{v.name}`", v.accepts, v.default, v.doc] for v in environment.VARIABLES]
    build = [[_build_names(v), v.accepts, v.default, v.doc] for v in settings.VARIABLES]
    columns = ["accepts", "default", "what it does"]
    return f"{markdown_table(['at run time', *columns], run_time)}\n\n{markdown_table(['at build', *columns], build)}"


def with_generated_tables(readme: str) -> str:
    """``readme`` with everything between its markers generated anew.

    Raises:
        ValueError: a pair of markers is not there exactly once.
    """
    for name, text in (("support-matrix", support_matrix()), ("environment", environment_tables())):
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if readme.count(begin) != 1 or readme.count(end) != 1 or not pattern.search(readme):
            raise ValueError(f"README.md needs {begin} and then {end}, each once")
        block = f"{begin}\n{text}\n{end}"
        readme = pattern.sub(lambda _, block=block: block, readme)  # type: ignore[misc]
    return readme


def _build_names(variable: settings.Variable) -> str:
    return f"`{variable.name}`" + (f" (or `{variable.alias}`)" if variable.alias else "")


if __name__ == "__main__":
    README.write_text(with_generated_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
