"""How words, figures and times look on a terminal: short, aligned, and coloured where it means something."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from rich.cells import cell_len, set_cell_size

from controlplane.core.trouble import age_s, span, why

HEALTH: Final = {"up": "green", "unknown": "dim", "ejected": "yellow", "down": "bold red"}
"""Styles; the terminal's own palette, so that they are right on light and on dark."""
STATES: Final = {"enabled": "dim", "drain": "yellow", "disabled": "red", "removed": "yellow"}
LEVELS: Final = {"bad": "bold red", "warn": "yellow", "note": "cyan"}
_BAD_PLANES: Final = ("gone", "see above", "unreachable")
PLANES: Final = {"ok": "green", "draining": "dim", **dict.fromkeys(_BAD_PLANES, "bold red")}
SOURCES: Final = {
    "ok": "green",
    "stale": "yellow",
    "held": "yellow",
    "denied": "bold red",
    "error": "bold red",
}

RANK: Final = {"down": 0, "ejected": 1, "out": 2, "unknown": 3, "up": 4}
"""Of how a backend stands: the troubled first."""
_NOTHING: Final = "-"
_KILO: Final = 1000.0
_WHOLE: Final = 9.95
"""From here on a figure has no decimals."""
_LONG: Final = 999.5


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What a terminal can show besides ASCII."""

    ellipsis: str
    bars: str
    """From nothing to the highest; empty: no sparklines."""


RICH: Final = Glyphs("…", "▁▂▃▄▅▆▇█")
PLAIN: Final = Glyphs("~", "")


def health_cell(backend: Mapping[str, Any]) -> tuple[str, str]:
    """Return how a backend is, and its style."""
    state = backend["health"]["state"]
    return state, HEALTH.get(state, "")


def state_cell(backend: Mapping[str, Any]) -> tuple[str, str]:
    """Return an operator's word for a backend, with a star if it is no file's, and its style."""
    state = "removed" if backend.get("removed") else backend["state"]
    return state + ("*" if backend.get("overridden") else ""), STATES.get(state, "")


def since_cell(backend: Mapping[str, Any], now: datetime) -> tuple[str, str]:
    """Return for how long a backend's health has been so."""
    age = age_s(backend["health"].get("since"), now)
    return "" if age is None else span(age), "dim"


def address_cell(backend: Mapping[str, Any]) -> tuple[str, str]:
    """Return where a backend is, unless its name says so."""
    return "" if backend["address"] == backend["id"] else backend["address"], "dim"


def cause_cell(backend: Mapping[str, Any]) -> tuple[str, str]:
    """Return why a backend is not up."""
    return why(backend), HEALTH.get(backend["health"]["state"], "")


def label(level: str, word: str) -> str:
    """Write what trouble is; the bad stands out without colour as well."""
    return word.upper() if level == "bad" else word


def figure(value: float | None) -> str:
    """Write a number in at most four characters: `7`, `3.2`, `999`, `1.2k`, `42M`."""
    if value is None or not math.isfinite(value):
        return _NOTHING
    unit = ""
    for unit in ("", "k", "M", "G", "T"):  # noqa: B007 - the last one is what it is written in
        if value < _LONG:
            break
        value /= _KILO
    if value >= _WHOLE or value == int(value):
        return f"{value:.0f}{unit}"
    return f"{value:.1f}{unit}"


def percent(share: float | None) -> str:
    """Write a share; never 100% when it is less."""
    return _NOTHING if share is None else f"{math.floor(share * 100)}%"


def shorten(text: str, width: int, glyphs: Glyphs = RICH) -> str:
    """Fit text into columns; both ends stay, for names often begin alike."""
    if cell_len(text) <= width:
        return text
    if width <= 1:
        return glyphs.ellipsis[:width]
    tail = (width - 1) // 2
    # What is wide may not split evenly: set_cell_size fills up with a blank.
    return set_cell_size(text, width - 1 - tail) + glyphs.ellipsis + set_cell_size(text[::-1], tail)[::-1]


def spark(values: Sequence[float], width: int, glyphs: Glyphs = RICH) -> str:
    """Draw the newest values as bars, one column each, from zero to their peak; at the right."""
    shown = values[-width:] if width > 0 else ()
    peak = max(shown, default=0.0)
    top = len(glyphs.bars) - 1
    if top < 0:
        return ""
    # The peak divided by itself is 1, whatever its size: each times a scale could be above the top.
    parts = [each / peak if peak > 0 else 0.0 for each in shown]
    return "".join(glyphs.bars[math.ceil(part * top)] for part in parts).rjust(width)
