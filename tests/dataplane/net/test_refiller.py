"""Dialling ahead: a batch is claimed, dialled and told; a failure asks for patience.

The backend is a Unix socket: each dial is over at once, or refused at once.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dataplane.core.pool import REMEMBERED_S
from dataplane.core.reasons import DiscardCause
from dataplane.core.spec import ServiceSpec
from dataplane.net.backend import Backend
from dataplane.net.goal import PoolShare
from dataplane.net.pool import Pool
from dataplane.net.reactor import Reactor
from dataplane.net.refiller import MAX_RETRY_S, RETRY_S
from tests.dataplane.net.rig import spec
from tests.support.clock import FakeClock


class Share(PoolShare):
    """Grants so many at most, and writes down what it is told."""

    is_shared = True

    def __init__(self) -> None:
        super().__init__()
        self.grants = 100
        self.told: list[tuple[str, int]] = []

    def claim(self, own: int, missing: int, size: int) -> int:
        """Grant some."""
        del size
        self.told.append(("claim", own + missing))
        return min(missing, self.grants)

    def publish(self, idle: int, own: int) -> None:
        """Write it down."""
        del idle
        self.told.append(("publish", own))


class Site:
    """A pool, its share, and the backend's listening socket."""

    def __init__(self, path: Path, clock: FakeClock) -> None:
        self._clock = clock
        self.path = path / "b"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.reactor = Reactor(SimpleNamespace(), 4096, clock)  # type: ignore[arg-type]
        self.share = Share()
        wanted = self.spec(min_idle=4)
        self.backend = Backend(self.reactor, wanted.backends[0], wanted, self.share)

    def spec(self, **pool: Any) -> ServiceSpec:
        """Return a service's settings, under which nothing grows old by itself."""
        return spec(
            backends=[{"id": "b", "address": f"unix:{self.path}"}],
            pool={"mode": "preconnect", "idle_timeout": "0s", "max_age": "0s", **pool},
        )

    def configure(self, **pool: Any) -> ServiceSpec:
        """Take other settings of the pool."""
        wanted = self.spec(**pool)
        self.backend.configure(wanted.backends[0], wanted, self.reactor.now)
        return wanted

    @property
    def pool(self) -> Pool:
        """The pool."""
        return self.backend.pool

    def pass_time(self, seconds: float) -> None:
        """Let time pass, without a timer."""
        self._clock.advance(seconds)
        self.reactor.clock()

    def listen(self) -> None:
        """Accept from now on."""
        self.listener.listen(64)

    def close(self) -> None:
        """Close everything."""
        self.pool.clear(DiscardCause.CHANGED)
        self.listener.close()
        self.reactor.epoll.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site whose backend does not listen yet."""
    clock = FakeClock()
    one = Site(tmp_path, clock)
    yield one
    one.close()


def test_a_batch_is_claimed_before_it_is_dialled_and_told_afterwards(site: Site) -> None:
    """The others know before the first dial."""
    site.listen()
    site.pool.refiller.restock()
    assert len(site.pool) == 4
    assert site.share.told == [("claim", 4), ("publish", 4)]


def test_what_is_not_granted_is_not_dialled(site: Site) -> None:
    """The goal is what was granted, until it is found anew."""
    site.listen()
    site.share.grants = 1
    site.pool.refiller.restock()
    assert (len(site.pool), site.pool.goal.count) == (1, 1)
    site.pool.refiller.refill()
    assert len(site.pool) == 1
    site.share.grants = 100
    site.pool.refiller.restock()
    assert len(site.pool) == 4


def test_a_failure_asks_for_patience(site: Site) -> None:
    """One dial for each pause, and each pause is twice as long, up to a bound; a success forgets them."""
    refiller, pauses = site.pool.refiller, []
    for _ in range(7):
        refiller.restock()
        refiller.restock()
        pauses.append(refiller.retry_s)
        site.pass_time(refiller.retry_s)
    assert pauses == [min(MAX_RETRY_S, RETRY_S * 2**number) for number in range(7)]
    site.listen()
    refiller.restock()
    assert (len(site.pool), refiller.retry_s) == (4, 0.0)


def test_min_idle_that_comes_later_waits_for_the_end_of_a_greeting_too(site: Site) -> None:
    """A backend that greets is not dialled for `min_idle`; when that was long ago, it is, also if nobody comes."""
    site.listen()
    service = site.configure(min_idle=0, greeting_age="5s")
    site.pool.refiller.greeted()
    service = site.configure(min_idle=4, greeting_age="5s")
    assert (service.pool.min_idle, len(site.pool)) == (4, 0)
    site.pass_time(REMEMBERED_S + 1)
    site.reactor.wheel.advance(site.reactor.now)
    assert len(site.pool) == 4


@pytest.mark.parametrize(
    ("cause", "patient"), [(DiscardCause.EOF, True), (DiscardCause.UNREAD, True), (DiscardCause.AGE, False)]
)
def test_an_end_that_the_backend_chose_is_a_failure(site: Site, cause: DiscardCause, patient: Any) -> None:
    """A backend that closes what waits for clients is not dialled again at once."""
    site.listen()
    site.pool.refiller.restock()
    site.pool.shelf.discard(site.pool.shelf.idle[0], cause)
    assert (site.pool.refiller.retry_at > site.reactor.now) is patient
    assert site.share.told[-1] == ("publish", 3)
