"""One backend as the connection path sees it: where it is, who is connected to it, and since when it drains."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from dataplane.core.health import HealthState
from dataplane.core.reasons import DiscardCause, SkipReason
from dataplane.net.backend import ABSENT, Absence, Backend
from dataplane.net.idle import Idle
from dataplane.net.reactor import Reactor
from dataplane.net.sockopts import to_sockaddr
from tests.dataplane.net.descriptors import adopted
from tests.dataplane.net.rig import count, spec

PLACES = [to_sockaddr(f"127.0.0.{host}:2") for host in (2, 3, 4)]
FIRST, SECOND, THIRD = PLACES


def made(address: str = "db.example:2", state: str = "enabled") -> tuple[Any, Any]:
    """Return the specs of a backend and of its service."""
    service = spec(backends=[{"id": "b", "address": address, "state": state}])
    return service.backends[0], service


@pytest.fixture
def backend() -> Iterator[Backend]:
    """A backend whose name is not resolved yet."""
    reactor = Reactor(SimpleNamespace(), 1024)  # type: ignore[arg-type]
    one, service = made()
    yield Backend(reactor, one, service)
    reactor.epoll.close()


def test_a_name_is_nowhere_until_it_is_resolved(backend: Backend) -> None:
    """It is not usable, and says why; an address in figures is there at once."""
    assert (backend.address, backend.absence, backend.named, backend.usable) == (None, ABSENT, True, False)
    backend.configure(*made("127.0.0.2:2"), now=0.0)
    assert (backend.address, backend.absence, backend.named) == (FIRST, None, False)
    backend.configure(*made("[fe80::1%lo]:2"), now=0.0)
    assert backend.named


def test_the_address_that_worked_stays_the_first(backend: Backend) -> None:
    """As long as the name still has it; the others follow in their order."""
    backend.locate(PLACES, None)
    assert (backend.address, backend.others) == (FIRST, (SECOND, THIRD))
    backend.prefer(SECOND)
    assert (backend.address, backend.others) == (SECOND, (THIRD, FIRST))
    backend.locate([THIRD, FIRST, SECOND], None)
    assert (backend.address, backend.others) == (SECOND, (THIRD, FIRST))
    backend.prefer(to_sockaddr("127.0.0.9:2"))
    assert backend.address == SECOND
    gone = Absence(HealthState.DOWN, SkipReason.UNRESOLVED, "no such name")
    backend.locate([], gone)
    assert (backend.address, backend.others, backend.absence) == (None, (), gone)


def test_pooled_connections_lead_where_it_is(backend: Backend) -> None:
    """The pool gives up what leads elsewhere, and everything when another address is configured."""
    shelf = backend.pool.shelf
    for place in PLACES:
        near, far = socket.socketpair()
        far.close()
        shelf.idle.append(Idle(shelf, adopted(near), place, 0.0, 0.0))
    backend.locate([FIRST, THIRD], None)
    assert [idle.target for idle in shelf.idle] == [FIRST, THIRD]
    backend.prefer(THIRD)
    assert [idle.target for idle in shelf.idle] == [THIRD]
    backend.configure(*made("127.0.0.9:2"), now=0.0)
    assert not shelf.idle
    assert backend.totals.discarded[DiscardCause.CHANGED] == len(PLACES)


def test_who_enters_is_active_until_it_leaves(backend: Backend) -> None:
    """In a process alone its own connections are all."""
    for _ in range(3):
        count(backend, 1)
    count(backend, -1)
    assert (backend.own, backend.active) == (2, 2)


def test_a_drain_is_timed_from_its_begin(backend: Backend) -> None:
    """Another state that drains, too, goes on with it; enabled again, it is forgotten."""
    seen = []
    for now, state in enumerate(("drain", "disabled", "enabled", "drain"), 10):
        backend.set_spec(made(state=state)[0], float(now))
        seen.append(backend.draining_since)
    assert seen == [10.0, 10.0, None, 13.0]
