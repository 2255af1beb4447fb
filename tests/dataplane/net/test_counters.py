"""Counters of the connection path."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from dataplane.core.reasons import CloseReason, DiscardCause
from dataplane.core.tls_cause import TlsCause
from dataplane.net.counters import LATENCY_BOUNDS_S, BackendTotals, Histogram, ServiceTotals, tls_totals


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


def test_handshakes_are_counted_from_the_first_one_on() -> None:
    """Who has none has no place for them: there may be 10,000 backends."""
    totals, other = ServiceTotals(), BackendTotals()
    assert totals.tls is other.tls is None
    channel: Any = SimpleNamespace(version="TLSv1.3", resumed=True, handshake_s=0.25)
    tls_totals(totals).completed(channel)
    tls_totals(totals).failed(TlsCause.NO_SHARED_CIPHER)
    counted = tls_totals(totals)
    assert counted is totals.tls
    assert counted.versions == {"TLSv1.2": 0, "TLSv1.3": 1}
    assert counted.resumed == 1
    assert counted.causes == {**dict.fromkeys(TlsCause, 0), TlsCause.NO_SHARED_CIPHER: 1}
    assert (counted.seconds.sum, sum(counted.seconds.counts)) == (0.25, 1)
    assert other.tls is None
