"""When connections that drain have to be gone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from dataplane.core.reasons import CloseReason
from dataplane.node.drain import drain, undrain


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
