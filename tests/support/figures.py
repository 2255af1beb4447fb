"""Figures that tests measure and print, but do not judge: times and shares are for documents."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows)]
    return "\n".join(lines) + "\n"


def print_table(name: str, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; with LB_TEST_FIGURES, a folder, also write it to a file `name`.md there."""
    text = f"{title}\n\n{table(heads, rows)}"
    print(f"\n{text}")  # noqa: T201 - for who reads the test's output
    if folder := os.environ.get("LB_TEST_FIGURES"):
        (Path(folder) / f"{name}.md").write_text(text)
