"""Charts as SVG: bars with their spread, and curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from xml.sax.saxutils import escape

from tools.bench.contenders import CONTENDERS
from tools.bench.figures import shown

__all__ = ["Line", "bars", "curve"]

_WIDTH: Final = 760
_LABELS: Final = 220
_VALUES: Final = 110
_ROW: Final = 26
_TOP: Final = 46
_OURS: Final = "#1f6feb"
_YARDSTICK: Final = "#d9822b"
_OTHERS: Final = "#9aa4b1"
_INK: Final = "#24292f"
_FAINT: Final = "#d8dee4"
_SHADES: Final = (_OURS, "#0b3d91", "#6ea8fe")
_PLOT: Final = (70, 50, 520, 250)
"""Left, top, width and height of a curve's field."""
_HEIGHT: Final = 350


def _colour(name: str) -> str:
    if name.startswith("ours"):
        return _OURS
    return _YARDSTICK if name.startswith("haproxy") else _OTHERS


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 13, weight: str = "normal"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
        f'fill="{_INK}">{escape(text)}</text>'
    )


def _document(height: int, title: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" font-family="system-ui, sans-serif"><title>{escape(title)}</title>'
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>'
    )
    return "\n".join([head, _text(16, 26, title, size=16, weight="bold"), *parts, "</svg>"]) + "\n"


def bars(title: str, unit: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Draw medians as bars, and the range of the turns as a whisker.

    Args:
        title: Above it.
        unit: Of the figures.
        rows: `median`, `low` and `high` by the name of a contender, top first.
    """
    highest = max((row["high"] for row in rows.values()), default=0.0) or 1.0
    per_unit = (_WIDTH - _LABELS - _VALUES) / highest
    parts = []
    for index, (name, row) in enumerate(rows.items()):
        y = _TOP + index * _ROW
        middle = y + _ROW / 2 - 2
        low, high = _LABELS + row["low"] * per_unit, _LABELS + row["high"] * per_unit
        parts += [
            _text(_LABELS - 8, middle + 4, CONTENDERS[name].title, anchor="end"),
            (
                f'<rect x="{_LABELS}" y="{y}" width="{max(1.0, row["median"] * per_unit):.1f}" height="{_ROW - 6}" '
                f'fill="{_colour(name)}"/>'
            ),
            (
                f'<path d="M{low:.1f} {middle:.1f}H{high:.1f}M{low:.1f} {middle - 4:.1f}v8M{high:.1f} {middle - 4:.1f}v8" '
                f'stroke="{_INK}" fill="none"/>'
            ),
            _text(max(high, _LABELS) + 8, middle + 4, shown(row["median"])),
        ]
    return _document(_TOP + len(rows) * _ROW + 14, f"{title} ({unit})" if unit else title, parts)


@dataclass(frozen=True)
class Line:
    """A contender's curve: points of (number, figure), both above 0."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class _Scale:
    """A logarithmic axis."""

    low: float
    high: float
    start: float
    length: float

    def __call__(self, value: float) -> float:
        span = math.log(self.high / self.low) or 1.0
        return self.start + self.length * math.log(value / self.low) / span


def curve(title: str, across: str, unit: str, lines: Sequence[Line]) -> str:
    """Draw figures against a number, both logarithmic.

    Args:
        title: Above it.
        across: What the number is.
        unit: Of the figures.
        lines: At least one, each with at least one point.
    """
    left, top, width, height = _PLOT
    numbers = sorted({x for line in lines for x, _ in line.points})
    figures = [y for line in lines for _, y in line.points]
    low, high = 10 ** math.floor(math.log10(min(figures))), 10 ** math.ceil(math.log10(max(figures)))
    if low == high:
        high = low * 10
    x_of = _Scale(numbers[0], numbers[-1], left, width)
    y_of = _Scale(low, high, top + height, -height)
    parts = [f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="{_FAINT}"/>']
    parts += [
        _text(x_of(number), top + height + 18, f"{number:,.0f}", anchor="middle", size=12)
        for number in numbers
    ]
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        y = y_of(10.0**power)
        parts.append(f'<path d="M{left} {y:.1f}h{width}" stroke="{_FAINT}"/>')
        parts.append(_text(left - 6, y + 4, f"{10.0**power:,g}", anchor="end", size=12))
    parts.append(_text(left + width / 2, top + height + 38, across, anchor="middle"))
    ours = iter(_SHADES)
    for index, line in enumerate(lines):
        colour = next(ours, _OURS) if line.name.startswith("ours") else _colour(line.name)
        path = "L".join(f"{x_of(x):.1f} {y_of(y):.1f}" for x, y in line.points)
        parts.append(f'<path d="M{path}" stroke="{colour}" stroke-width="2.5" fill="none"/>')
        parts += [
            f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3.5" fill="{colour}"/>' for x, y in line.points
        ]
        y = top + 12 + index * 22
        parts.append(f'<rect x="{left + width + 14}" y="{y - 10}" width="12" height="12" fill="{colour}"/>')
        parts.append(_text(left + width + 32, y + 1, CONTENDERS[line.name].title, size=12))
    return _document(_HEIGHT, f"{title} ({unit})" if unit else title, parts)
