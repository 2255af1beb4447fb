"""Charts as SVG: bars with their spread, and curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from xml.sax.saxutils import escape

from tools.bench.contenders import title_of
from tools.bench.figures import shown

_WIDTH: Final = 760
_LABELS: Final = 290
_VALUES: Final = 110
_ROW: Final = 26
_TOP: Final = 64
_OURS: Final = "#1f6feb"
_YARDSTICK: Final = "#d9822b"
_OTHERS: Final = "#9aa4b1"
_INK: Final = "#24292f"
_FAINT: Final = "#d8dee4"
_SHADES: Final = (_OURS, "#0b3d91", "#6ea8fe")
_PLOT: Final = (70, 64, 500, 250)
"""Left, top, width and height of a curve's field."""
_HEIGHT: Final = 368
_INSET: Final = 16
"""Of the first and the last point from the field's edges."""
_MANY_TICKS: Final = 8
_STEPS: Final = (1, 2, 5, 10)
"""Where a logarithmic axis has lines, and may begin and end."""


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


def _document(height: int, title: str, metric: Mapping[str, Any], parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" font-family="system-ui, sans-serif"><title>{escape(title)}</title>'
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>'
    )
    better = f"{metric['better']} is better"
    under = f"{metric['unit']}; {better}" if metric["unit"] else better
    lines = [_text(16, 26, title, size=16, weight="bold"), _text(16, 46, under, size=12), *parts]
    return "\n".join([head, *lines, "</svg>"]) + "\n"


def bars(title: str, metric: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Draw medians as bars, and the range of the turns as a whisker.

    Args:
        title: Above it.
        metric: Whose `unit` the figures have, and which of them is `better`.
        rows: `median`, `low` and `high`, none below 0 drawn as such, by the name of a contender, top first.
    """
    highest = max((row["high"] for row in rows.values()), default=0.0)
    per_unit = (_WIDTH - _LABELS - _VALUES) / (highest if highest > 0 else 1.0)
    parts = []
    for index, (name, row) in enumerate(rows.items()):
        y = _TOP + index * _ROW
        middle = y + _ROW / 2 - 3
        low, high = (_LABELS + max(0.0, row[end]) * per_unit for end in ("low", "high"))
        parts += [
            _text(_LABELS - 8, middle + 5, title_of(name), anchor="end"),
            (
                f'<rect x="{_LABELS}" y="{y}" width="{max(1.0, row["median"] * per_unit):.1f}" height="{_ROW - 6}" '
                f'fill="{_colour(name)}"/>'
            ),
            (
                f'<path d="M{low:.1f} {middle:.1f}H{high:.1f}M{low:.1f} {middle - 4:.1f}v8M{high:.1f} {middle - 4:.1f}v8" '
                f'stroke="{_INK}" fill="none"/>'
            ),
            _text(high + 8, middle + 5, shown(row["median"])),
        ]
    return _document(_TOP + len(rows) * _ROW + 10, title, metric, parts)


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


def _axis(figures: Sequence[float]) -> list[float]:
    """Return the lines of a logarithmic axis around all figures, at least two: 1, 2, 5, 10, ..., or powers of ten if they are many."""
    least, most = min(figures), max(figures)
    lines = []
    for power in range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1):
        lines += [step * 10.0**power for step in _STEPS[:-1]]
    below = max(index for index, line in enumerate(lines) if line <= least * (1 + 1e-9))
    above = min(
        (index for index, line in enumerate(lines) if line >= most * (1 - 1e-9)), default=len(lines) - 1
    )
    chosen = lines[below : max(above, below + 1) + 1]
    if len(chosen) <= _MANY_TICKS:
        return chosen
    return [10.0**power for power in range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)]


def _grid(ticks: Sequence[float], y_of: _Scale) -> list[str]:
    left, top, width, height = _PLOT
    parts = [f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="{_FAINT}"/>']
    for tick in ticks:
        y = y_of(tick)
        parts.append(f'<path d="M{left} {y:.1f}h{width}" stroke="{_FAINT}"/>')
        parts.append(_text(left - 6, y + 4, f"{tick:,.10g}", anchor="end", size=12))
    return parts


def curve(title: str, across: str, metric: Mapping[str, Any], lines: Sequence[Line]) -> str:
    """Draw figures against a number, both logarithmic.

    Args:
        title: Above it.
        across: What the number is.
        metric: Whose `unit` the figures have, and which of them is `better`.
        lines: At least one, each with at least one point.
    """
    left, top, width, height = _PLOT
    numbers = sorted({x for line in lines for x, _ in line.points})
    ticks = _axis([y for line in lines for _, y in line.points])
    x_of = _Scale(numbers[0], numbers[-1], left + _INSET, width - 2 * _INSET)
    y_of = _Scale(ticks[0], ticks[-1], top + height, -height)
    parts = _grid(ticks, y_of)
    parts += [
        _text(x_of(number), top + height + 18, f"{number:,.0f}", anchor="middle", size=12)
        for number in numbers
    ]
    parts.append(
        _text(left + width / 2, top + height + 40, f"{across} (both axes logarithmic)", anchor="middle")
    )
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
        parts.append(_text(left + width + 32, y + 1, title_of(line.name), size=12))
    return _document(_HEIGHT, title, metric, parts)
