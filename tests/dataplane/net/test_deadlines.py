"""When a relaying flow has to end, decided without a service, a listener or an epoll."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from dataplane.core.reasons import CloseReason
from dataplane.core.spec import TimeoutsSpec
from dataplane.net.calls import close, send
from dataplane.net.deadlines import LONG_LIVED_S, Deadlines
from dataplane.net.reactor import Wheel
from tests.dataplane.net.descriptors import adopted

START = 1000.0
TIMEOUTS = TimeoutsSpec(connect_s=0.0, idle_s=60.0, half_closed_s=10.0, lifetime_s=0.0, proxy_header_s=0.0)


def fail(item: object, error: Exception) -> None:
    """Let what a timer raised fail the test."""
    raise error


class FakeFlow:
    """What Deadlines look at of a flow; `ends` has (reason, reset) for each call of `end`."""

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)
        self.tick = 0
        self.ends: list[tuple[CloseReason, bool]] = []
        self.looked_at: list[object] = []
        self.deadlines: Any = None

    def end(self, reason: CloseReason, *, reset: bool = False) -> None:
        """Note it."""
        self.ends.append((reason, reset))

    def reset_victim(self, victim: object) -> None:
        """Note it."""
        self.looked_at.append(victim)

    def on_timer(self, now: float) -> None:
        """Ask, as a flow does that relays."""
        self.deadlines.on_timer(self, now)


Make = Callable[..., tuple[Any, Wheel]]


@pytest.fixture
def make() -> Iterator[Make]:
    """Return what makes a flow that has begun at START, scheduled in a wheel, with some timeouts changed."""
    with ExitStack() as stack:

        def made(timeouts: dict[str, float], **fields: Any) -> tuple[Any, Wheel]:
            wheel = Wheel(START, fail)
            legs = []
            for _ in range(2):
                near, far = socket.socketpair()
                stack.enter_context(far)
                fd = adopted(near)
                stack.callback(close, fd)
                legs.append(SimpleNamespace(fd=fd, pending=None))
            flow: Any = FakeFlow(last=START, started_at=START, connected_at=START, deadline=0.0)
            vars(flow).update(reason=None, victim=None, speaker=None, tuned=False, unsent=0, backend=None)
            flow.client, flow.server = legs
            flow.service = SimpleNamespace(drain_reason=CloseReason.DRAIN_TIMEOUT)
            vars(flow).update(fields)
            flow.deadlines = Deadlines(wheel, replace(TIMEOUTS, **timeouts))
            flow.deadlines.schedule(flow)
            return flow, wheel

        yield made


def test_who_is_idle_ends(make: Make) -> None:
    """Not a tick before the idle timeout, and with a FIN."""
    flow, wheel = make({})
    wheel.advance(START + 59.9)
    assert flow.ends == []
    wheel.advance(START + 60.1)
    assert flow.ends == [(CloseReason.IDLE_TIMEOUT, False)]


def test_what_has_moved_meanwhile_counts(make: Make) -> None:
    """A byte does not touch the wheel: it is looked at when the tick comes."""
    flow, wheel = make({})
    flow.last = START + 30.0
    wheel.advance(START + 89.9)
    assert flow.ends == []
    wheel.advance(START + 90.1)
    assert flow.ends == [(CloseReason.IDLE_TIMEOUT, False)]


@pytest.mark.parametrize(
    ("timeouts", "fields", "when", "reason"),
    [
        ({"lifetime_s": 40.0}, {}, 40.0, CloseReason.LIFETIME),
        ({"lifetime_s": 80.0}, {}, 60.0, CloseReason.IDLE_TIMEOUT),
        ({}, {"deadline": START + 20.0}, 20.0, CloseReason.DRAIN_TIMEOUT),
        ({"idle_s": 0.0}, {"deadline": START + 70.0}, 70.0, CloseReason.DRAIN_TIMEOUT),
        ({}, {"reason": CloseReason.BACKEND_CLOSED}, 10.0, CloseReason.HALF_CLOSED_TIMEOUT),
        ({}, {"reason": CloseReason.CLIENT_CLOSED}, 60.0, CloseReason.IDLE_TIMEOUT),
        ({"half_closed_s": 0.0}, {"reason": CloseReason.BACKEND_CLOSED}, 60.0, CloseReason.IDLE_TIMEOUT),
    ],
)
def test_the_earliest_wins(
    make: Make, timeouts: dict[str, float], fields: dict[str, Any], when: float, reason: CloseReason
) -> None:
    """Idle, half-closed, lifetime and a drain's deadline; 0 means none."""
    flow, wheel = make(timeouts, **fields)
    wheel.advance(START + when - 0.1)
    assert flow.ends == []
    wheel.advance(START + when + 0.1)
    assert flow.ends == [(reason, False)]


def test_a_cut_in_the_middle_of_something_is_a_reset(make: Make) -> None:
    """A FIN would be taken for the end of what was being said."""
    flow, wheel = make({"lifetime_s": 30.0})
    flow.last, flow.speaker = START + 29.5, flow.server
    wheel.advance(START + 30.1)
    assert flow.ends == [(CloseReason.LIFETIME, True)]


def test_who_reads_slowly_is_not_idle(make: Make) -> None:
    """What the kernel holds for a peer has changed: something was read, or can be."""
    flow, wheel = make({})
    send(flow.client.fd, b"unread")
    wheel.advance(START + 60.1)
    assert flow.ends == []
    wheel.advance(START + 121.0)
    assert flow.ends == [(CloseReason.IDLE_TIMEOUT, False)]


def test_after_the_backend_has_finished_it_is_the_shorter_one(make: Make) -> None:
    """A deadline that comes later is brought forward; one that comes sooner stays."""
    flow, _ = make({})
    late = flow.tick
    flow.deadlines.half_closed(flow, START)
    assert flow.tick < late
    soon = flow.tick
    flow.deadlines.half_closed(flow, START + 5.0)
    assert flow.tick == soon


def test_who_waits_is_looked_at_for_a_drain_only(make: Make) -> None:
    """What a flow waits for before its relay has a deadline of its own."""
    flow, _ = make({}, server=None)
    assert not flow.tick
    flow.deadline = START + 5.0
    flow.deadlines.schedule(flow)
    drained = flow.tick
    flow.deadline = START + 9.0
    flow.deadlines.schedule(flow)
    assert flow.tick == drained > 0


def test_a_victim_is_looked_at_again(make: Make) -> None:
    """It is reset as soon as it has all that it is owed, at the latest when it is idle."""
    flow, wheel = make({})
    flow.victim = flow.client
    flow.deadlines.on_timer(flow, START + 1.0)
    assert (flow.looked_at, flow.ends) == ([flow.client], [])
    wheel.cancel(flow)
    flow.deadlines.on_timer(flow, START + 61.0)
    assert flow.ends == [(CloseReason.IDLE_TIMEOUT, True)]


def test_nothing_limits_it(make: Make) -> None:
    """Without any timeout a flow is looked at once, for its keepalive, and then never again."""
    flow, wheel = make({"idle_s": 0.0, "half_closed_s": 0.0})
    assert (flow.tick, flow.deadlines.first_check_s) == (0, LONG_LIVED_S)
    wheel.at(flow, START + LONG_LIVED_S)
    wheel.advance(START + LONG_LIVED_S + 0.1)
    assert (flow.tuned, flow.tick, flow.ends) == (True, 0, [])
