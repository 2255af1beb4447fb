"""What the clients of each service met in the last minute."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dataplane.core.reasons import CloseReason, Harm
from dataplane.core.recent import STEP_S
from dataplane.report.outcomes import Outcomes

CUT = next(reason for reason in CloseReason if reason.harm is Harm.CUT)
REFUSED = next(reason for reason in CloseReason if reason.harm is Harm.REFUSED)
FINE = next(reason for reason in CloseReason if reason.harm not in {Harm.CUT, Harm.REFUSED})


class Service:
    """Counts clients."""

    def __init__(self) -> None:
        self.totals = SimpleNamespace(connections=0, closed=dict.fromkeys(CloseReason, 0))

    def close(self, reason: CloseReason, count: int = 1) -> None:
        """Count clients that have come and gone."""
        self.totals.connections += count
        self.totals.closed[reason] += count


class Node:
    """Services, and time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.running: dict[str, Any] = {}
        self.leaving: dict[str, Any] = {}
        self.timers: list[tuple[float, Any]] = []
        self.reactor = SimpleNamespace(
            clock=lambda: self.now,
            wheel=SimpleNamespace(at=lambda who, when: self.timers.append((when, who))),
        )

    def add(self, room: dict[str, Any], name: str = "web") -> Service:
        """Run a service."""
        service = Service()
        room[name] = SimpleNamespace(service=service)
        return service

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with every look that falls into it."""
        end = self.now + seconds
        while self.timers and self.timers[0][0] <= end:
            self.now, who = self.timers.pop(0)
            who.on_timer(self.now)
        self.now = end


@pytest.fixture
def node() -> Any:
    """A node without services."""
    return Node()


def test_harm_is_told_by_its_reason_and_no_harm_is_not(node: Any) -> None:
    """Whoever ended it himself is only counted."""
    outcomes, service = Outcomes(node), node.add(node.running)
    outcomes.start()
    for reason, count in ((CUT, 2), (REFUSED, 3), (FINE, 4)):
        service.close(reason, count)
    node.pass_time(1.0)
    told = outcomes.of(service)
    assert told.connections == 9
    assert (told.cut, told.refused) == ({CUT.value: 2}, {REFUSED.value: 3})
    assert told.window_s == 1.0


def test_a_minute_later_it_is_forgotten(node: Any) -> None:
    """It looks again and again."""
    outcomes, service = Outcomes(node), node.add(node.running)
    outcomes.start()
    service.close(CUT)
    node.pass_time(30.0)
    assert outcomes.of(service).cut == {CUT.value: 1}
    node.pass_time(60.0 + STEP_S)
    assert outcomes.of(service).cut == {}
    assert outcomes.of(service).connections == 0


def test_a_service_that_is_younger_than_the_last_look_is_told_whole(node: Any) -> None:
    """All that it has counted is recent."""
    outcomes = Outcomes(node)
    outcomes.start()
    service = node.add(node.running)
    service.close(REFUSED)
    assert outcomes.of(service).refused == {REFUSED.value: 1}
    assert outcomes.of(service).window_s == 0.0


def test_one_that_leaves_is_looked_at_to_its_end(node: Any) -> None:
    """Its clients are still there; then nothing of it is kept."""
    outcomes, service = Outcomes(node), node.add(node.running)
    outcomes.start()
    node.leaving["web"] = node.running.pop("web")
    node.pass_time(STEP_S)
    service.close(CUT)
    node.pass_time(1.0)
    assert outcomes.of(service).cut == {CUT.value: 1}
    node.leaving.clear()
    node.pass_time(STEP_S)
    assert outcomes._of == {}
