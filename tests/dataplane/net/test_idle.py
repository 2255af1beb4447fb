"""One connection that lies in a pool: what becomes of it when its backend says or ends something."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from dataplane.core.reasons import DiscardCause
from dataplane.core.spec import PoolMode
from dataplane.net.idle import IN, Idle
from dataplane.net.sockopts import RDHUP


@dataclass
class Pool:
    """Takes note of what it is told (`net.idle.IdleOwner`)."""

    mode: PoolMode
    told: list[object] = field(default_factory=list)

    @property
    def spec(self) -> Any:
        """How its connections are used."""
        return SimpleNamespace(mode=self.mode)

    @property
    def reactor(self) -> Any:
        """Whose epoll is told of another mask."""
        return SimpleNamespace(epoll=SimpleNamespace(modify=lambda _fd, mask: self.told.append(mask)))

    def discard(self, _idle: Idle, cause: DiscardCause) -> None:
        """Note it."""
        self.told.append(cause)

    def greeted(self, _idle: Idle) -> None:
        """Note it."""
        self.told.append("greeted")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our end, and the backend's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def idle(pool: Any, sock: socket.socket) -> Idle:
    """Return a connection that lies in a pool."""
    return Idle(pool, sock, None, 0.0, 0.0)


@pytest.mark.parametrize("mode", [PoolMode.REUSE, PoolMode.PRECONNECT])
def test_an_end_takes_it_out(pair: tuple[socket.socket, socket.socket], mode: PoolMode) -> None:
    """A FIN, with or without a word before epoll tells of it."""
    pool = Pool(mode)
    pair[1].close()
    one = idle(pool, pair[0])
    one.on_event(IN)
    one.on_event(IN | RDHUP)
    one.on_failure()
    assert pool.told == [DiscardCause.EOF] * 3


def test_a_greeting_stays_where_it_is(pair: tuple[socket.socket, socket.socket]) -> None:
    """It is for the client who gets the connection; from now on only its end is of interest."""
    pool = Pool(PoolMode.PRECONNECT)
    pair[1].send(b"220 hello")
    one = idle(pool, pair[0])
    one.on_event(IN)
    assert (pool.told, one.mask) == ([RDHUP, "greeted"], RDHUP)
    assert pair[0].recv(100) == b"220 hello"


def test_what_was_not_read_by_the_last_client_is_nobodys(pair: tuple[socket.socket, socket.socket]) -> None:
    """A connection that is used again must not say to one what was meant for another."""
    pool = Pool(PoolMode.REUSE)
    pair[1].send(b"late")
    idle(pool, pair[0]).on_event(IN)
    assert pool.told == [DiscardCause.UNREAD]


def test_nothing_to_read_is_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    """Somebody else has taken it, or the kernel was wrong."""
    pool = Pool(PoolMode.REUSE)
    idle(pool, pair[0]).on_event(IN)
    assert pool.told == []
