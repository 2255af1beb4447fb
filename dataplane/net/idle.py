"""Idle backend connections on their shelf: what may happen to one there, and when it is too old.

The last one in is the first one out (`Pool.take`), so that what demand no longer needs grows old at the bottom.

On a connection with TLS whose handshake is over, what comes is read, for only inside it can be seen what it is: a ticket
concerns nobody, a greeting waits in the channel (`early`) for its one client, and a close_notify is an end as a FIN is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from dataplane.core.reasons import DiscardCause
from dataplane.core.spec import PoolMode
from dataplane.net.calls import IN, NOTHING, RDHUP, close, peek, receive, send
from dataplane.net.reactor import Handler

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dataplane.core.spec import PoolSpec
    from dataplane.net.counters import BackendTotals
    from dataplane.net.reactor import Reactor
    from dataplane.net.sockopts import SocketAddress
    from dataplane.net.tls import Channel

GREETING_BYTES: Final = 64 * 1024
"""What is read before a close: with a greeting unread, the backend would see a reset (RFC 1122, 4.2.2.13)."""


class _ShelfOwner(Protocol):
    """Who keeps a shelf filled."""

    def lost(self, cause: DiscardCause) -> None: ...
    def greeted(self) -> None: ...
    def restock(self) -> None: ...


class Idle(Handler):
    """One pooled connection; `mask` is what epoll reports of it, `nagle` as in Leg."""

    __slots__ = ("born_at", "fd", "mask", "nagle", "shelf", "since", "target", "tls")

    def __init__(
        self, shelf: Shelf, fd: int, target: SocketAddress | None, born_at: float, since: float
    ) -> None:
        self.is_backend = True
        self.shelf = shelf
        self.fd = fd
        self.nagle = True
        self.target = target
        """Where it leads."""
        self.born_at = born_at
        self.since = since
        self.mask = IN
        self.tls: Channel | None = None
        """Its session, if its handshake is over."""

    def on_event(self, events: int) -> None:
        """See why the connection has become readable."""
        shelf = self.shelf
        if events & ~IN:
            shelf.discard(self, DiscardCause.EOF)
            return
        if self.tls is not None:
            cause = self.listen()
            if cause is not None:
                shelf.discard(self, cause)
            elif self.tls.early and self.mask == IN:
                self.has_spoken()
            return
        waiting = peek(self.fd)
        if waiting == NOTHING:
            return
        if waiting <= 0:
            shelf.discard(self, DiscardCause.EOF)
        elif shelf.spec.mode is PoolMode.REUSE:
            shelf.discard(self, DiscardCause.UNREAD)
        else:
            self.has_spoken()

    def has_spoken(self) -> None:
        """Take note of a greeting; what follows it is left where it is."""
        self.mask = RDHUP
        self.shelf.reactor.epoll.modify(self.fd, RDHUP)
        self.shelf.greeted(self)

    def listen(self) -> DiscardCause | None:
        """Read what has come on a connection with TLS; return why nobody can have it, or None."""
        tls = self.tls
        assert tls is not None  # noqa: S101 - the caller looked
        data, code = receive(self.fd, GREETING_BYTES)
        if not data:
            return None if code == -NOTHING else DiscardCause.EOF
        plain = tls.receive(data)
        if plain:
            tls.early += bytes(plain)
        owed = tls.outgoing()
        if owed and send(self.fd, owed) != len(owed):
            return DiscardCause.EOF
        if tls.closed or tls.failure is not None:
            return DiscardCause.EOF
        return DiscardCause.UNREAD if tls.early and self.shelf.spec.mode is PoolMode.REUSE else None

    def on_failure(self) -> None:
        """Close it: a bug of ours was met."""
        self.shelf.discard(self, DiscardCause.EOF)


class Shelf:
    """The idle connections of one pool, the youngest last."""

    __slots__ = ("idle", "owner", "reactor", "spec", "tick", "totals")

    def __init__(self, reactor: Reactor, owner: _ShelfOwner, spec: PoolSpec, totals: BackendTotals) -> None:
        self.reactor = reactor
        self.owner = owner
        self.spec = spec
        self.totals = totals
        self.idle: list[Idle] = []
        self.tick = 0

    def configure(self, spec: PoolSpec) -> None:
        """Take new settings, and close what is too many or too old by them."""
        self.spec = spec
        for idle in self.idle[: max(0, len(self.idle) - spec.max_idle)]:
            self.discard(idle, DiscardCause.SURPLUS)
        self._expire(self.reactor.now)
        self.schedule()

    def discard(self, idle: Idle, cause: DiscardCause) -> None:
        """Close one, if it is still here."""
        if idle not in self.idle:
            return
        self.idle.remove(idle)
        self.totals.discarded[cause] += 1
        self.reactor.forget(idle.fd)
        if idle.tls is not None:
            send(idle.fd, idle.tls.finish())  # the end is no truncation for the backend
        receive(idle.fd, GREETING_BYTES)
        close(idle.fd)
        self.owner.lost(cause)

    def clear(self, cause: DiscardCause) -> None:
        """Close all."""
        while self.idle:
            self.discard(self.idle[-1], cause)
        self.reactor.wheel.cancel(self)

    def keep(self, addresses: Sequence[SocketAddress]) -> None:
        """Close those that lead to none of `addresses`."""
        for idle in [idle for idle in self.idle if idle.target not in addresses]:
            self.discard(idle, DiscardCause.CHANGED)

    def greeted(self, idle: Idle) -> None:
        """Take note that the backend has spoken on an idle connection: it is not kept for long."""
        wheel, age_s = self.reactor.wheel, self.spec.greeting_age_s
        self.owner.greeted()
        if age_s and (not self.tick or self.tick * wheel.resolution_s > idle.born_at + age_s):
            wheel.move(self, idle.born_at + age_s)

    def on_timer(self, now: float) -> None:
        """Close what is too old, have it replaced, and set the next deadline."""
        self._expire(now)
        self.owner.restock()
        if not self.tick:
            self.schedule()

    def _expire(self, now: float) -> None:
        for idle in list(self.idle):
            cause = next((cause for cause, when in self._ends(idle) if when <= now), None)
            if cause is not None:
                self.discard(idle, cause)

    def _ends(self, idle: Idle) -> Iterator[tuple[DiscardCause, float]]:
        """Yield what ends an idle connection that nobody takes, and when."""
        spec = self.spec
        if spec.max_age_s:
            yield DiscardCause.AGE, idle.born_at + spec.max_age_s
        if spec.greeting_age_s and idle.mask == RDHUP:
            yield DiscardCause.GREETED, idle.born_at + spec.greeting_age_s
        if spec.idle_timeout_s:
            yield DiscardCause.IDLE, idle.since + spec.idle_timeout_s

    def schedule(self) -> None:
        """Set the next deadline; whoever adds one to `idle` sees to it that there is one."""
        times = [when for idle in self.idle for _, when in self._ends(idle)]
        if times:
            self.reactor.wheel.move(self, min(times))
