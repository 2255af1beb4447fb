"""One idle backend connection of a pool, and what may happen to it there (see net.pool, rules 1 to 3)."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Final, Protocol

from dataplane.core.reasons import DiscardCause
from dataplane.core.spec import PoolMode
from dataplane.net.sockopts import DONTWAIT, RDHUP

if TYPE_CHECKING:
    from dataplane.core.spec import PoolSpec
    from dataplane.net.reactor import Reactor
    from dataplane.net.sockopts import SocketAddress

__all__ = ["IN", "PEEK", "Idle", "IdleOwner"]

IN: Final = select.EPOLLIN
PEEK: Final = int(socket.MSG_PEEK) | DONTWAIT
"""A plain number: `|` of the socket module's flags is a call into Python, for each client."""


class IdleOwner(Protocol):
    """The pool that a connection lies in."""

    reactor: Reactor
    spec: PoolSpec

    def discard(self, idle: Idle, cause: DiscardCause) -> None:
        """Close a connection that is in the pool."""

    def greeted(self, idle: Idle) -> None:
        """Take note that the backend has spoken on it."""


class Idle:
    """One pooled connection; `mask` is what epoll reports of it."""

    __slots__ = ("born_at", "mask", "pool", "since", "sock", "target")

    def __init__(
        self,
        pool: IdleOwner,
        sock: socket.SocketType,
        target: SocketAddress | None,
        born_at: float,
        since: float,
    ) -> None:
        self.pool = pool
        self.sock = sock
        self.target = target
        """Where it leads."""
        self.born_at = born_at
        self.since = since
        self.mask = IN

    def on_event(self, events: int) -> None:
        """See why the connection has become readable."""
        if events & ~IN:
            self.pool.discard(self, DiscardCause.EOF)
            return
        try:
            waiting = self.sock.recv(1, PEEK)
        except BlockingIOError:
            return
        except OSError:
            waiting = b""
        if not waiting:
            self.pool.discard(self, DiscardCause.EOF)
        elif self.pool.spec.mode is PoolMode.REUSE:
            self.pool.discard(self, DiscardCause.UNREAD)
        else:
            self.mask = RDHUP
            self.pool.reactor.epoll.modify(self.sock.fileno(), RDHUP)
            self.pool.greeted(self)

    def on_failure(self) -> None:
        """Close it: a bug of ours was met."""
        self.pool.discard(self, DiscardCause.EOF)
