"""When the connections of something that is drained have to be gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["closing_times"]


def closing_times(count: int, now: float, *, timeout_s: float, close_s: float) -> Iterator[float]:
    """Yield `count` deadlines (monotonic seconds): evenly over `close_s`, beginning when `timeout_s` is over.

    Spread, because clients that are all cut at once all come back at once.
    """
    start = now + timeout_s
    step = close_s / max(1, count - 1)
    for index in range(count):
        yield start + index * step
