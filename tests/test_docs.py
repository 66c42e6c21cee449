"""Code that the documentation quotes stands in the file that it names."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
QUOTE = re.compile(r"^`(?P<file>[\w/]+\.py)`\n```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def quotes(path: Path) -> list[tuple[str, str]]:
    return [(match["file"], match["code"]) for match in QUOTE.finditer(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_quoted_code_is_in_its_file(page: Path) -> None:
    missing = [(file, code) for file, code in quotes(page) if code not in (ROOT / file).read_text(encoding="utf-8")]
    assert not missing


def test_every_python_block_names_its_file() -> None:
    page = ROOT / "docs" / "forward_kernel.md"
    assert len(quotes(page)) == page.read_text(encoding="utf-8").count("```python") > 0
