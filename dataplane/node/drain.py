"""Draining: connections go on until their deadline, which is given here, and taken back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dataplane.core.reasons import CloseReason
from dataplane.net.flow import Flow
from dataplane.net.service import Service

__all__ = ["closing_times", "drain", "undrain"]


def drain(service: Service, flows: Iterable[Flow], reason: CloseReason) -> int:
    """Give flows of a service their last deadline; return how many there are that had none."""
    service.drain_reason = reason
    chosen = [flow for flow in flows if not flow.deadline or reason is CloseReason.SHUTDOWN]
    spec, now = service.spec.drain, service.reactor.now
    times = closing_times(len(chosen), now, timeout_s=spec.timeout_s, close_s=spec.close_s)
    for flow, when in zip(chosen, times, strict=True):
        flow.deadline = when
        service.deadlines.schedule(flow)
    return len(chosen)


def undrain(flows: Iterable[Flow]) -> None:
    """Take last deadlines back."""
    for flow in flows:
        if flow.deadline:
            flow.deadline = 0.0
            flow.service.deadlines.schedule(flow)


def closing_times(count: int, now: float, *, timeout_s: float, close_s: float) -> Iterator[float]:
    """Yield `count` deadlines (monotonic seconds): evenly over `close_s`, beginning when `timeout_s` is over.

    Spread, because clients that are all cut at once all come back at once.
    """
    start = now + timeout_s
    step = close_s / max(1, count - 1)
    for index in range(count):
        yield start + index * step
