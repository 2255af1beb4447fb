"""What a terminal shows, as a page of HTML that a browser makes a picture of."""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from tests.support.terminal import Cell

INK: Final = "#d8dee9"
PAPER: Final = "#12161d"
COLOURS: Final = {
    31: "#ff7b72",
    32: "#5fd08a",
    33: "#e8b75a",
    36: "#6cb6ff",
}
"""Of the eight that terminals have, those that we use."""
STYLE: Final = f"""
body {{ margin: 0; background: {PAPER}; }}
pre {{ margin: 0; padding: 16px 18px; display: inline-block; color: {INK};
       font: 15px/1.35 "DejaVu Sans Mono", "Liberation Mono", monospace; }}
"""


def page(cells: Sequence[Sequence[Cell]]) -> str:
    """Write the screen's lines as a page."""
    lines = "\n".join(_line(line) for line in cells)
    return f'<!doctype html><meta charset="utf-8"><style>{STYLE}</style><pre>{lines}</pre>'


def _line(cells: Sequence[Cell]) -> str:
    return "".join(
        f'<span style="{_css(style)}">{html.escape("".join(cell.char for cell in run))}</span>'
        for style, run in groupby(cells, key=lambda cell: cell.style)
    )


def _css(style: tuple[int, ...]) -> str:
    ink, paper = INK, PAPER
    for code in style:
        ink = COLOURS.get(code, ink)
    if 7 in style:  # noqa: PLR2004 - SGR: reverse
        ink, paper = paper, ink
    parts = [f"color:{ink}", f"background:{paper}"]
    parts += ["font-weight:700"] if 1 in style else []
    parts += ["opacity:.62"] if 2 in style else []  # noqa: PLR2004 - SGR: dim
    parts += ["text-decoration:underline"] if 4 in style else []  # noqa: PLR2004 - SGR: underlined
    return ";".join(parts)
