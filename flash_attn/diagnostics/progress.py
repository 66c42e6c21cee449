"""One line on the terminal that tells how far a command is."""

from __future__ import annotations

import sys


def show_progress(text: str) -> None:
    """Put ``text`` in place of what the line said, where stderr is a terminal; empty text clears the line."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
