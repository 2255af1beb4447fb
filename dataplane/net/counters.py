"""Counters of the connection path: plain numbers, read by status and metrics, never locked."""

from __future__ import annotations

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
        """Count `value`; most are below the first bounds."""
        index = 0
        for bound in self.bounds:
            if value <= bound:
                break
            index += 1
        self.counts[index] += 1
        self.sum += value


class ServiceTotals:
    """What a service has seen since it exists."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "closed",
        "connections",
        "handed_over",
        "queue",
        "retries",
        "session",
    )

    def __init__(self) -> None:
        self.connections = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.retries = 0
        self.handed_over = 0
        """Clients that went to another worker instead: they are none of `connections`, here."""
        self.closed = dict.fromkeys(CloseReason, 0)
        self.session = Histogram(SESSION_BOUNDS_S)
        self.queue = Histogram(LATENCY_BOUNDS_S)


class BackendTotals:
    """What a backend has seen since it was configured; `bytes_in` is client to backend."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "connect",
        "connect_failures",
        "connections",
        "discarded",
        "ejections",
        "first_byte",
        "hits",
        "misses",
    )

    def __init__(self) -> None:
        self.connections = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.connect_failures = 0
        self.ejections = 0
        self.hits = 0
        self.misses = 0
        self.discarded = dict.fromkeys(DiscardCause, 0)
        self.connect = Histogram(LATENCY_BOUNDS_S)
        self.first_byte = Histogram(LATENCY_BOUNDS_S)
