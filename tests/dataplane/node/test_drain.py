"""When connections that drain have to be gone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.reasons import CloseReason
from dataplane.node.drain import closing_times, drain, undrain


def drained(*deadlines: float, reason: CloseReason = CloseReason.DRAIN_TIMEOUT) -> tuple[int, list[float]]:
    """Drain flows that have deadlines already, or 0; return the count and their deadlines then."""
    service: Any = SimpleNamespace(
        reactor=SimpleNamespace(now=100.0),
        spec=SimpleNamespace(drain=SimpleNamespace(timeout_s=10.0, close_s=4.0)),
        deadlines=SimpleNamespace(schedule=lambda _: None),
        drain_reason=None,
    )
    flows: Any = [SimpleNamespace(deadline=when, service=service) for when in deadlines]
    count = drain(service, flows, reason)
    assert service.drain_reason is reason
    after = [flow.deadline for flow in flows]
    undrain(flows)
    assert not any(flow.deadline for flow in flows)
    return count, after


def test_those_that_drain_already_keep_their_deadline():
    """The others share the time in which all are closed."""
    assert drained(0.0, 103.0, 0.0) == (2, [110.0, 103.0, 114.0])


def test_a_shutdown_concerns_all():
    """It is the process that ends."""
    assert drained(0.0, 3.0, 0.0, reason=CloseReason.SHUTDOWN) == (3, [110.0, 112.0, 114.0])


def test_spread_evenly():
    """From the end of the timeout to the end of `close`, at equal distances."""
    assert list(closing_times(5, 100.0, timeout_s=60.0, close_s=10.0)) == [160.0, 162.5, 165.0, 167.5, 170.0]


def test_one_alone_goes_first():
    """There is nothing to spread."""
    assert list(closing_times(1, 100.0, timeout_s=60.0, close_s=10.0)) == [160.0]


def test_at_once():
    """Without timeout and spread, everything ends now."""
    assert list(closing_times(3, 100.0, timeout_s=0.0, close_s=0.0)) == [100.0] * 3


@given(st.integers(0, 500), st.floats(0, 1e6), st.floats(0, 1e4), st.floats(0, 1e3))
@settings(deadline=None)
def test_nobody_early_nobody_late(count, now, timeout_s, close_s):
    """As many times as connections, in order, none before the timeout and none after the spread."""
    times = list(closing_times(count, now, timeout_s=timeout_s, close_s=close_s))
    assert len(times) == count
    assert times == sorted(times)
    for when in times:
        assert now + timeout_s <= when
        assert when == pytest.approx(min(when, now + timeout_s + close_s))
