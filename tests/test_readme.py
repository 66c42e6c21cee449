"""README.md holds what the code says of itself."""

import pytest
import readme_tables

from flash_attn import environment


def test_generated_tables_are_up_to_date() -> None:
    readme = readme_tables.README.read_text(encoding="utf-8")
    assert readme == readme_tables.with_generated_tables(readme), "run: python -m tests.readme_tables"


def test_a_changed_answer_changes_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    readme = readme_tables.README.read_text(encoding="utf-8")
    planted = environment.Variable("FLASH_ATTENTION_PLANTED", "a | b", "a", "Planted.")
    monkeypatch.setattr(environment, "VARIABLES", (*environment.VARIABLES, planted))
    changed = readme_tables.with_generated_tables(readme)
    assert "| `FLASH_ATTENTION_PLANTED` | a \\| b | a | Planted. |" in changed
    assert changed != readme


@pytest.mark.parametrize("marker", ["<!-- support-matrix:begin -->", "<!-- environment:end -->"])
def test_a_lost_marker_is_named(marker: str) -> None:
    readme = readme_tables.README.read_text(encoding="utf-8").replace(marker, "")
    with pytest.raises(ValueError, match=marker):
        readme_tables.with_generated_tables(readme)
