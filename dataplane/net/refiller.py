"""Dialling ahead: what the pool of a backend lacks of its goal is dialled, before a client asks for it.

A failed dial of the pool's own is nobody's loss: it is tried again, later each time. It says nothing of
the backend's health that a client's dial or an active check would not say. A busy backend (net.dialer, rule 2)
is no exception: clients wait for its accept queue, and come first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dataplane.core.reasons import DiscardCause
from dataplane.net.backend_handshake import BackendHandshake
from dataplane.net.calls import IN, NOBODY, OUT, UNWATCHED, close
from dataplane.net.dialer import BUSY, PENDING, Attempt, Dial, begin
from dataplane.net.idle import Idle, Shelf

if TYPE_CHECKING:
    from dataplane.core.spec import PoolSpec
    from dataplane.net.goal import Goal, PoolOwner
    from dataplane.net.reactor import Reactor
    from dataplane.net.sockopts import SocketAddress

RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 30.0
MAX_DIALS: Final = 64
"""Dials of one pool under way at once."""
_UNASKED: Final = frozenset({DiscardCause.EOF, DiscardCause.UNREAD})
"""Ends that the backend chose: the pool is short of one, and nothing else would notice."""


class Refiller:
    """Who keeps the shelf of one pool filled, up to its goal."""

    __slots__ = (
        "backend",
        "dials",
        "goal",
        "reactor",
        "retry_at",
        "retry_s",
        "shakes_ahead",
        "shelf",
        "tick",
    )

    def __init__(self, reactor: Reactor, backend: PoolOwner, spec: PoolSpec, goal: Goal) -> None:
        self.reactor = reactor
        self.backend = backend
        self.goal = goal
        self.shelf = Shelf(reactor, self, spec, backend.totals)
        self.dials: set[Attempt] = set()
        """Those under way, in their TLS handshakes too."""
        self.shakes_ahead = False
        """Whether TLS to the backend begins here, and before a client is there."""
        self.retry_s = 0.0
        """How long the last pause after a failure was, or is; 0: nothing has failed since the last success."""
        self.retry_at = 0.0
        """When that pause ends."""
        self.tick = 0

    def restock(self) -> None:
        """Find the target anew, and dial up to it."""
        self.goal.take_part()
        self.goal.aim()
        self.refill()
        if not self.tick:
            self._schedule()

    def refill(self) -> None:
        """Dial up to the goal after a client has come, unless a failure asks for patience."""
        goal, own = self.goal, len(self.shelf.idle) + len(self.dials)
        missing = goal.count - own
        if missing <= goal.slack or self.reactor.now < self.retry_at:
            return
        missing = min(missing, MAX_DIALS - len(self.dials))
        share = goal.share
        if share.is_shared:
            granted = share.claim(own, missing, goal.size())
            if granted < missing:
                missing = granted
                goal.count, goal.slack = own + granted, 0
        for _ in range(missing):
            if not self._dial():
                break
        if share.is_shared:
            _publish(self)

    # -- dials ----------------------------------------------------------------------------------------

    def _dial(self) -> bool:
        backend, reactor, address = self.backend, self.reactor, self.backend.address
        assert address is not None  # noqa: S101 - the target is 0 without an address
        started_at = reactor.clock()
        fd, code = begin(address, reactor.accept_ceiling)
        if code == 0:
            if self.shakes_ahead:
                limit_s = backend.connect_timeout_s
                self._shake(fd, UNWATCHED, address, started_at, started_at + limit_s if limit_s else 0.0)
            else:
                reactor.watch(fd, self._add(fd, address, started_at, reactor.clock()), IN)
            return True
        if fd == NOBODY:
            self._back_off()
            return False
        if code == PENDING or (code != BUSY and backend.others):
            dial = Dial(reactor, address, backend.others, fd)
            if dial.start(self, backend.connect_timeout_s, code) == PENDING:
                self.dials.add(dial)
                return True
        else:
            close(fd)
        self._back_off()
        return False

    def dialled(self, dial: Dial, code: int) -> None:
        """Take a connection that is ready, or its failure."""
        self.dials.discard(dial)
        if code:
            self._back_off()
        else:
            if dial.failure:
                self.backend.prefer(dial.target)
            if self.shakes_ahead:
                self._shake(dial.fd, OUT, dial.target, dial.started_at, dial.deadline)
                return
            idle = self._add(dial.fd, dial.target, dial.started_at, self.reactor.now)
            self.reactor.handlers.put(dial.fd, idle)
            self.reactor.epoll.modify(dial.fd, IN)
        _publish(self)

    def _shake(self, fd: int, mask: int, target: SocketAddress, started_at: float, deadline: float) -> None:
        tls = self.backend.tls
        assert tls is not None  # noqa: S101 - else nothing would be done ahead
        handshake = BackendHandshake(self.reactor, fd, mask, target)
        handshake.dialled_at = started_at
        self.dials.add(handshake)
        handshake.start(self, tls, self.backend, deadline)

    def shaken(self, handshake: BackendHandshake) -> None:
        """Take a connection whose handshake is over, or its failure."""
        self.dials.discard(handshake)
        if handshake.failure:
            self._back_off()
        else:
            idle = self._add(handshake.fd, handshake.target, handshake.dialled_at, self.reactor.now)
            idle.tls = handshake.channel
            self.reactor.handlers.put(handshake.fd, idle)
            self.reactor.epoll.modify(handshake.fd, IN)
            if handshake.channel.early:
                idle.has_spoken()
        _publish(self)

    def _add(self, fd: int, target: SocketAddress, started_at: float, now: float) -> Idle:
        self.goal.demand.dialled(now - started_at)
        self.retry_s = self.retry_at = 0.0
        idle = Idle(self.shelf, fd, target, now, now)
        self.shelf.idle.append(idle)
        if not self.shelf.tick:
            self.shelf.schedule()
        return idle

    def _back_off(self) -> None:
        """Dial no more for a while; what fails together counts once."""
        now = self.reactor.now
        if now < self.retry_at:
            return
        self.retry_s = min(MAX_RETRY_S, self.retry_s * 2 or RETRY_S)
        self.retry_at = now + self.retry_s
        self._schedule()

    def on_timer(self, now: float) -> None:
        """Try again: a pause after a failure is over, or a greeting is too long ago to be believed."""
        del now
        self.restock()

    def _schedule(self) -> None:
        again_at = self.goal.greeting.until if self.goal.least else 0.0
        times = [when for when in (self.retry_at, again_at) if when > self.reactor.now]
        if times:
            self.reactor.wheel.move(self, min(times))

    # -- what happens on the shelf (net.idle) ----------------------------------------------

    def lost(self, cause: DiscardCause) -> None:
        """Take note that a connection has been closed."""
        _publish(self)
        if cause in _UNASKED and len(self.shelf.idle) < self.goal.least:
            self._back_off()

    def greeted(self) -> None:
        """Take note that the backend speaks first."""
        self.goal.greeting.heard(self.reactor.now)
        if self.goal.least and not self.tick:
            self._schedule()

    # -- giving up ------------------------------------------------------------------------------------

    def cancel_one(self) -> bool:
        """Give up a dial, if there is one."""
        if not self.dials:
            return False
        self.dials.pop().cancel()
        _publish(self)
        return True

    def clear(self) -> None:
        """Give up all dials, and what was learnt of the backend."""
        for dial in self.dials:
            dial.cancel()
        self.dials.clear()
        self.goal.count = 0
        self.goal.greeting.forget()
        self.reactor.wheel.cancel(self)
        self.retry_s = self.retry_at = 0.0


def _publish(refiller: Refiller) -> None:
    idle = len(refiller.shelf.idle)
    refiller.goal.share.publish(idle, idle + len(refiller.dials))
