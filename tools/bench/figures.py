"""Medians, spreads and ratios of repeated measurements, and how people read them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_DIGITS: Final = 3


@dataclass(frozen=True, slots=True)
class Summary:
    """What repeated turns of one measurement gave."""

    median: float
    low: float
    high: float
    values: tuple[float, ...]
    """In the order of the turns."""


def summarise(values: Sequence[float]) -> Summary | None:
    """Return median and range of `values`; None if there are none."""
    if not values:
        return None
    return Summary(statistics.median(values), min(values), max(values), tuple(values))


def ratio(one: float | None, other: float | None) -> float | None:
    """Return how many times the `other` the `one` is; None if there is nothing to compare."""
    return None if one is None or not other else one / other


def shown(value: float) -> str:
    """Return a figure with three significant digits, thousands separated: `12,300`, `4.57`, `0.031`."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "-"
    decimals = _DIGITS - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, decimals)
    if rounded == 0:
        return "0"
    decimals = _DIGITS - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(0, decimals)}f}"
