"""Counters of the connection path: plain numbers, read by status and metrics, never locked."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

from dataplane.core.reasons import CloseReason, DiscardCause

LATENCY_BOUNDS_S: Final = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
SESSION_BOUNDS_S: Final = (0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0)


class Histogram:
    """Counts of observations by upper bound."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """One for each bound, not cumulative, and the last for what is above them all."""
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count `value`."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


@dataclass(slots=True, eq=False)
class ServiceTotals:
    """What a service has seen since it exists."""

    connections: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    retries: int = 0
    handed_over: int = 0
    """Clients that went to another worker instead: they are none of `connections`, here."""
    closed: dict[CloseReason, int] = field(default_factory=dict.fromkeys(CloseReason, 0).copy)
    session: Histogram = field(default_factory=lambda: Histogram(SESSION_BOUNDS_S))
    queue: Histogram = field(default_factory=lambda: Histogram(LATENCY_BOUNDS_S))


@dataclass(slots=True, eq=False)
class BackendTotals:
    """What a backend has seen since it was configured; `bytes_in` is client to backend."""

    connections: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    connect_failures: int = 0
    ejections: int = 0
    hits: int = 0
    misses: int = 0
    discarded: dict[DiscardCause, int] = field(default_factory=dict.fromkeys(DiscardCause, 0).copy)
    connect: Histogram = field(default_factory=lambda: Histogram(LATENCY_BOUNDS_S))
    first_byte: Histogram = field(default_factory=lambda: Histogram(LATENCY_BOUNDS_S))
