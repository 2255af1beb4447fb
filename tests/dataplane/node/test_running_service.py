"""One running service: who may get its clients, and what is said of its backends."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from dataplane.core.health import HealthState, Outcome
from dataplane.core.outlier import Evidence
from dataplane.core.spec import BackendSpec, OperatorState, ServiceSpec
from dataplane.net.backend import Backend
from dataplane.net.connect import Observer
from dataplane.net.reactor import Reactor
from dataplane.net.service import Service
from dataplane.node.running_service import RunningService, find, take_share
from dataplane.telemetry.events import Events
from tests.dataplane.net.rig import spec


class Owner:
    """A node's part in it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.reactor = Reactor(asyncio.get_running_loop(), 1024)
        self.events = Events(lambda kind, **fields: self.told.append((kind, fields)), lambda: 0.0)
        self.random = Random(1)
        self.restocked: list[RunningService] = []
        self.forgotten: list[RunningService] = []
        self.errors: list[tuple[str, int]] = []

    def make_service(self, spec: ServiceSpec, observer: Observer) -> Service:
        """Make it."""
        return Service(self.reactor, spec, observer)

    def restock(self, running: RunningService) -> None:
        """Note it."""
        self.restocked.append(running)

    def local_error(self, service: str, code: int) -> None:
        """Note it."""
        self.errors.append((service, code))

    def drained(self, running: RunningService) -> None:
        """Note it."""
        self.forgotten.append(running)

    def kinds(self) -> list[str]:
        """Return what was told."""
        return [kind for kind, _ in self.told]


@pytest.fixture
async def owner():
    """A node's part."""
    owner = Owner()
    yield owner
    owner.reactor.epoll.close()


def ran(owner: Owner, *ids: str, **options: Any) -> RunningService:
    """Return a service with backends that nobody listens at, its first selection made."""
    running = RunningService(owner, spec(**options))
    for id_ in ids:
        backend = BackendSpec(id_, "127.0.0.1:1", 1, 0, OperatorState.ENABLED)
        running.service.backends[id_] = Backend(owner.reactor, backend, running.service.spec)
    running.rebuild()
    return running


async def test_what_becomes_of_a_selection_is_told_once(owner):
    """That nobody is usable, and that somebody is again, is told when it turns."""
    running = ran(owner, "a")
    backend = running.service.backends["a"]
    backend.spec = backend.spec._replace(state=OperatorState.DRAIN)
    for _ in range(2):
        running.refresh(backend)
        running.rebuild()
    backend.spec = backend.spec._replace(state=OperatorState.ENABLED)
    running.reassess(backend)
    assert owner.restocked == [running]
    running.rebuild()
    assert owner.kinds() == ["no_usable_backend", "usable_again"]


async def test_a_streak_ejects_and_a_passed_check_takes_back(owner):
    """Failures in a row take a backend away; a check that passes ends that before its time."""
    running = ran(owner, "a", "b")
    backend = running.service.backends["a"]
    for _ in range(running.service.spec.passive.failures):
        running.backend_failed(backend, Evidence.CONNECT, "refused")
    running.rebuild()
    assert owner.kinds() == ["backend_ejected"]
    assert (backend.usable, running.health(backend).state.value) == (False, "ejected")
    assert running.service.selection.pick(0, ()).id == "b"
    assert running.tick, "it wakes up when the ejection ends"
    running.judged(backend, None, passed="an active check passed")
    assert owner.kinds() == ["backend_ejected", "backend_reinstated"]
    assert backend.usable


async def test_an_ejection_ends_by_itself(owner):
    """The timer takes back those whose time is over."""
    running = ran(owner, "a", "b")
    backend = running.service.backends["a"]
    for _ in range(running.service.spec.passive.failures):
        running.backend_failed(backend, Evidence.CONNECT, "refused")
    running.on_timer(owner.reactor.now + 3600)
    assert owner.told[-1][1]["cause"] == "the ejection's time is over"
    assert backend.usable


async def test_a_removed_backend_is_not_ejected(owner):
    """Its id may be another backend's by now."""
    running = ran(owner, "a", "b")
    gone = running.service.backends.pop("a")
    for _ in range(10):
        running.backend_failed(gone, Evidence.CONNECT, "refused")
    assert not owner.told


async def test_a_success_ends_a_streak(owner):
    """One connection on which the backend speaks, and the count begins anew."""
    running = ran(owner, "a", "b")
    backend = running.service.backends["a"]
    for _ in range(running.service.spec.passive.failures - 1):
        running.backend_failed(backend, Evidence.CONNECT, "refused")
    assert backend.failures
    running.backend_spoke(backend)
    assert not backend.failures
    running.backend_failed(backend, Evidence.CONNECT, "refused")
    assert not owner.told


async def test_what_a_check_has_changed_is_told(owner):
    """A verdict that changes something is told with what was, and the selection is made anew."""
    running = ran(owner, "a", "b")
    backend = running.service.backends["a"]
    change = None
    while change is None:
        change = backend.health.observe(Outcome(ok=False, cause="refused"), 0.0)
    running.judged(backend, change)
    kind, fields = owner.told[-1]
    assert (kind, fields["was"], fields["cause"]) == ("backend_down", "unknown", "refused")
    assert not backend.usable
    assert owner.restocked == [running]


async def test_a_service_with_clients_is_not_forgotten(owner):
    """It is when the last of them has gone."""
    running = ran(owner)
    running.service.flows.add(object())  # type: ignore[arg-type] # any will do
    running.drained()
    assert not owner.forgotten
    running.service.flows.clear()
    running.drained()
    assert owner.forgotten == [running]


@pytest.mark.parametrize(
    ("before", "change", "taken"),
    [
        ({}, {"weight": 7}, True),
        ({}, {"weight": 0}, False),
        ({"weight": 0}, {"weight": 7}, False),
        ({}, {"weight": 7, "state": OperatorState.DRAIN}, False),
        ({"state": OperatorState.DRAIN}, {"weight": 7}, False),
        ({}, {"weight": 7, "tier": 1}, False),
        ({}, {"weight": 7, "address": "127.0.0.1:9"}, False),
    ],
)
async def test_a_share_alone(owner, before, change, taken):
    """Another weight above 0 is all that it takes; what else is new has to be found out."""
    running = ran(owner, "a")
    backend = running.service.backends["a"]
    old = backend.spec._replace(**before)
    backend.set_spec(old, 0.0)
    running.refresh(backend)
    stood = backend.standing
    assert take_share(running, backend, old._replace(**change)) is taken
    if taken:
        assert backend.spec == old._replace(**change)
        assert backend.standing == stood._replace(weight=7)
    else:
        assert (backend.spec, backend.standing) == (old, stood)


async def test_a_share_of_one_that_is_gone_or_judged_by_others(owner):
    """One that was removed comes back whole; a verdict of somebody else ends with the change."""
    running = ran(owner, "a", health={"active": {"type": "none"}})
    backend = running.service.backends["a"]
    other = backend.spec._replace(weight=7)
    backend.removed = True
    assert not take_share(running, backend, other)
    backend.removed = False
    backend.health.decide(HealthState.UP, "said so", 0.0)
    assert not take_share(running, backend, other)


async def test_find(owner):
    """A backend is found by its service and id, or not at all."""
    running = ran(owner, "a")
    services = {"s": running}
    assert find(services, "s", "a") == (running, running.service.backends["a"])
    assert find(services, "s", "b") is None
    assert find(services, "t", "a") is None
