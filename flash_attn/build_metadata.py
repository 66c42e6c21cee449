"""What the build found, chose and why, as it was kept in the package."""

import json
from pathlib import Path
from typing import Any

METADATA_FILE = Path(__file__).with_name("_build_metadata.json")


def read_build_metadata() -> dict[str, Any] | None:
    """Return the metadata of the build that installed this package, or None in a tree that was never built.

    Keys: ``version``; ``editable``; ``settings``, the build variables in force; ``found``, the toolchains,
    PyTorch and machine; ``plan``, with ``target`` (``rocm``, ``cuda`` or ``none``), ``reason``, ``archs``,
    ``head_dims``, ``jobs`` and ``warnings``. An editable install keeps what was found when it was installed.

    Raises:
        ValueError: the file is not a JSON object.
    """
    if not METADATA_FILE.is_file():
        return None
    try:
        metadata = json.loads(METADATA_FILE.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{METADATA_FILE} is not JSON ({error}): reinstall flash-attn") from error
    if not isinstance(metadata, dict):
        raise ValueError(f"{METADATA_FILE} holds a {type(metadata).__name__}, not an object: reinstall flash-attn")
    return metadata
