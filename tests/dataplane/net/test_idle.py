"""Idle connections on their shelf: what makes one leave it, and who is told."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from dataplane.core.reasons import DiscardCause
from dataplane.net.calls import IN, receive
from dataplane.net.counters import BackendTotals
from dataplane.net.idle import Idle, Shelf
from dataplane.net.reactor import Reactor
from tests.dataplane.net.descriptors import adopted
from tests.dataplane.net.rig import spec


class Site:
    """A shelf, who fills it, and the backend's ends."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.reactor = Reactor(SimpleNamespace(), 4096)  # type: ignore[arg-type]
        self.totals = BackendTotals()
        self.shelf = Shelf(self.reactor, self, self.spec(), self.totals)
        self.ends: list[socket.socket] = []
        self.causes: list[DiscardCause] = []
        self.greetings = self.restocks = 0

    def spec(self, **options: Any) -> Any:
        """Return settings under which nothing grows old by itself."""
        return spec(
            pool={"mode": "preconnect", "idle_timeout": "0s", "max_age": "0s", **self.options, **options}
        ).pool

    def lost(self, cause: DiscardCause) -> None:
        """Write it down."""
        self.causes.append(cause)

    def greeted(self) -> None:
        """Count it."""
        self.greetings += 1

    def restock(self) -> None:
        """Count it."""
        self.restocks += 1

    def add(self) -> Idle:
        """Put one on the shelf."""
        near, far = socket.socketpair()
        self.ends.append(far)
        now = self.reactor.now
        idle = Idle(self.shelf, adopted(near), None, now, now)
        self.reactor.watch(idle.fd, idle, IN)
        self.shelf.idle.append(idle)
        self.shelf.schedule()
        return idle

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.reactor.now += seconds
        self.reactor.wheel.advance(self.reactor.now)

    def close(self) -> None:
        """Close everything."""
        self.shelf.clear(DiscardCause.CHANGED)
        for end in self.ends:
            end.close()
        self.reactor.epoll.close()


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A site with the options of the test."""
    one = Site(**getattr(request, "param", {}))
    yield one
    one.close()


@pytest.mark.parametrize("site", [{"mode": "reuse"}, {"mode": "preconnect"}], indirect=True)
def test_the_end_of_a_connection_is_seen(site: Site) -> None:
    """What the backend closes leaves the shelf, and whoever fills it is told why; twice is once."""
    idle = site.add()
    site.ends[0].close()
    idle.on_event(IN)
    site.shelf.discard(idle, DiscardCause.EOF)
    assert (len(site.shelf.idle), site.causes) == (0, [DiscardCause.EOF])
    assert site.totals.discarded[DiscardCause.EOF] == 1


@pytest.mark.parametrize("site", [{"mode": "reuse"}], indirect=True)
def test_nothing_unread_is_given_to_the_next_client(site: Site) -> None:
    """A connection that was used by somebody is closed when anything comes."""
    idle = site.add()
    site.ends[0].send(b"late")
    idle.on_event(IN)
    assert site.causes == [DiscardCause.UNREAD]


@pytest.mark.parametrize("site", [{"greeting_age": "5s"}], indirect=True)
def test_a_greeting_is_kept_for_a_while(site: Site) -> None:
    """A new connection whose backend speaks first stays, unread, until it is too old; then another is asked for."""
    idle = site.add()
    site.ends[0].send(b"220 ready")
    idle.on_event(IN)
    assert (site.greetings, site.causes) == (1, [])
    assert receive(idle.fd, 100, leave=True) == (b"220 ready", 0)
    site.pass_time(5.1)
    assert (site.causes, site.restocks) == ([DiscardCause.GREETED], 1)


@pytest.mark.parametrize("site", [{"max_age": "10s"}, {"idle_timeout": "10s"}], indirect=True)
def test_each_grows_old_by_itself(site: Site) -> None:
    """The oldest goes first, when its own time has come."""
    first = site.add()
    site.pass_time(4)
    second = site.add()
    site.pass_time(6.1)
    assert first not in site.shelf.idle
    assert site.shelf.idle == [second]
    site.pass_time(4.1)
    assert site.shelf.idle == []


def test_a_smaller_shelf_loses_the_oldest(site: Site) -> None:
    """`max_idle` falls: the surplus is closed, the youngest stay."""
    idle = [site.add() for _ in range(4)]
    site.shelf.configure(site.spec(max_idle=1))
    assert (site.shelf.idle, site.causes) == (idle[3:], [DiscardCause.SURPLUS] * 3)


def test_nothing_to_read_is_nothing(site: Site) -> None:
    """Somebody else has taken it, or the kernel was wrong."""
    idle = site.add()
    idle.on_event(IN)
    assert site.shelf.idle == [idle]
