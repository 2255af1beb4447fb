"""Counters of the connection path."""

from __future__ import annotations

from dataplane.core.reasons import CloseReason, DiscardCause
from dataplane.net.counters import LATENCY_BOUNDS_S, BackendTotals, Histogram, ServiceTotals


def test_an_observation_is_counted_in_the_first_bucket_that_holds_it() -> None:
    """A bound belongs to its own bucket; what is above them all has the last one."""
    histogram = Histogram((1.0, 2.0))
    for value in (0.0, 1.0, 1.5, 2.0, 2.5, 100.0):
        histogram.observe(value)
    assert (histogram.counts, histogram.sum) == ([2, 2, 2], 107.0)


def test_totals_begin_at_nothing_each_with_their_own() -> None:
    """No two services or backends count in one place, and every word is there from the beginning."""
    service, other = ServiceTotals(), ServiceTotals()
    service.closed[CloseReason.IDLE_TIMEOUT] += 1
    service.queue.observe(1.0)
    assert other.closed == dict.fromkeys(CloseReason, 0)
    assert other.queue.counts == [0] * (len(LATENCY_BOUNDS_S) + 1)
    backend = BackendTotals()
    backend.discarded[DiscardCause.AGE] += 1
    assert BackendTotals().discarded == dict.fromkeys(DiscardCause, 0)
    assert not vars(BackendTotals).keys() & {"__dict__"}
