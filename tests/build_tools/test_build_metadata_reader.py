import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "flash_attn" / "build_metadata.py"


@pytest.fixture
def reader(tmp_path: Path) -> ModuleType:
    """Load the reader from another folder, without importing flash_attn."""
    copy = tmp_path / "build_metadata.py"
    copy.write_text(SOURCE.read_text())
    spec = importlib.util.spec_from_file_location("build_metadata_copy", copy)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_tree_that_was_never_built_has_none(reader: ModuleType) -> None:
    assert reader.read_build_metadata() is None


def test_what_the_build_wrote_is_read(reader: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "_build_metadata.json").write_text(json.dumps({"plan": {"target": "none"}}))
    assert reader.read_build_metadata() == {"plan": {"target": "none"}}


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_a_damaged_file_is_named(reader: ModuleType, tmp_path: Path, text: str) -> None:
    (tmp_path / "_build_metadata.json").write_text(text)
    with pytest.raises(ValueError, match=r"_build_metadata\.json .* reinstall flash-attn"):
        reader.read_build_metadata()
