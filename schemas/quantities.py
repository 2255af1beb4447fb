"""Durations and shares in text: read strictly, and written in one normal form. Nothing of pydantic: commands read them, too."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from schemas.errors import shown

_UNIT_MS: Final = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
DURATION_PATTERN: Final = r"^(0|([0-9]+(\.[0-9]+)?(ms|s|m|h))+)$"
POSITIVE_DURATION_PATTERN: Final = r"^(?=.*[1-9])([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
_DURATION: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h))+")
_DURATION_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_DURATION_CHARS: Final = 40
# A timer wheel and a log line need an end; ten years is longer than any connection.
_LONGEST_MS: Final = 10 * 365 * 24 * 3_600_000


def parse_duration(text: object) -> float:
    """Read `250ms`, `5s`, `3m`, `1h`, `1m30s`, `1.5s` or `0`: seconds, in whole milliseconds, 0 to ten years.

    ValueError: it is none; the text says what one looks like.
    """
    if text == "0" or (text == 0 and type(text) is int):
        return 0.0
    if not isinstance(text, str) or len(text) > _DURATION_CHARS or _DURATION.fullmatch(text) is None:
        raise ValueError(f'must be a duration such as "250ms", "5s" or "1m30s", not {shown(text)}')
    total_ms = sum(Decimal(number) * _UNIT_MS[unit] for number, unit in _DURATION_PART.findall(text))
    if total_ms != int(total_ms):
        raise ValueError(f"must be whole milliseconds, not {shown(text)}")
    if total_ms > _LONGEST_MS:
        raise ValueError(f'must be at most ten years ("87600h"), not {shown(text)}')
    return int(total_ms) / 1000


def format_duration(seconds: float) -> str:
    """Write seconds in the largest unit that needs no fraction: `30s`, `250ms`, `10m`, `90s`."""
    total_ms = round(seconds * 1000)
    if total_ms == 0:
        return "0s"
    unit, size = next((unit, size) for unit, size in _UNIT_MS.items() if total_ms % size == 0)
    return f"{total_ms // size}{unit}"


PERCENT_PATTERN: Final = r"^(100(\.0{1,2})?|[0-9]{1,2}(\.[0-9]{1,2})?)%$"
_PERCENT: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,2})?)%")
_WHOLE_BP: Final = 10_000


def parse_percent(text: object) -> float:
    """Read `10%` or `12.5%`: a fraction, 0 to 1, in steps of a hundredth of a per cent. ValueError: it is none."""
    match = _PERCENT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f'must be a share such as "10%" or "12.5%", not {shown(text)}')
    basis_points = int(Decimal(match[1]) * 100)
    if basis_points > _WHOLE_BP:
        raise ValueError(f"must be at most 100%, not {shown(text)}")
    return basis_points / _WHOLE_BP


def format_percent(fraction: float) -> str:
    """Write a fraction as `10%` or `12.5%`."""
    return f"{round(fraction * _WHOLE_BP) / 100:g}%"
