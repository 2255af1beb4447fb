"""Slow start: the share of its weight that a backend gets while it warms up.

The share grows in sixteenths, so that scaled weights stay small integers and a service's selection is
rebuilt at most sixteen times for each backend that returns.
"""

from __future__ import annotations

from typing import Final

__all__ = ["STEPS", "next_step", "ramp"]

STEPS: Final = 16
"""Steps from nothing to the whole weight."""

_EARLY: Final = 1e-3
"""Part of a step by which it may come early: a timer that fires exactly on time must find it reached,
whatever was lost in rounding."""


def ramp(now: float, since: float, duration_s: float) -> float:
    """Return the share of the weight, 1/16..1; never 0, or nothing would ever warm up.

    It came up at monotonic second `since`, and has its whole weight after `duration_s`; 0: at once.
    """
    return _step(now, since, duration_s) / STEPS


def next_step(now: float, since: float, duration_s: float) -> float | None:
    """Return when `ramp` grows next, in monotonic seconds; None once it is 1."""
    step = _step(now, since, duration_s)
    return None if step == STEPS else since + (step + 1) * duration_s / STEPS


def _step(now: float, since: float, duration_s: float) -> int:
    if duration_s <= 0:
        return STEPS
    return min(max(1, int((now - since) * STEPS / duration_s + _EARLY)), STEPS)
