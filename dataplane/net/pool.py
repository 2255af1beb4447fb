"""Idle backend connections, ready for a client. What may be in here is a safety rule.

Theory of operation:

1. `preconnect`: a connection in the pool never carried a client's byte, and serves one client. What the
   backend says first (a greeting) stays in its socket, unread, for that client: it is only peeked. A server that
   has greeted waits for a login, and not for long: MariaDB for 10 s, NATS for 2 s, from its accept on. So such a
   connection is handed out until it is `greeting_age` old, which is counted from the connect, as the earliest
   that the server can have begun to count.
2. `reuse`: a connection in the pool has nothing to read. The first readable event, data or EOF, discards it.
3. An idle connection is in the epoll, so most deaths are seen at once; the hand-over looks once more.
4. A pool dials ahead of demand (`core.pool.Demand`) up to its target, never above `max_idle` and never so
   that clients, idle connections and dials together exceed `limits.per_backend`. Under load it dials in
   batches: `slack` connections may be missing before it begins, and then all of them are dialled.
   At a backend that greets, connections that nobody takes within `greeting_age` are in vain: there the target is
   what demand asks for in that time, and `min_idle`, which no demand asks for, does not count (`core.pool.Greeting`).
5. The last one in is the first one out, so that what demand no longer needs grows old at the bottom.
6. A failed dial of the pool's own is nobody's loss: it is tried again, later each time. It says nothing of
   the backend's health that a client's dial or an active check would not say. A busy backend (net.dialer, rule 2)
   is no exception: clients wait for its accept queue, and come first.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Final, Protocol

from dataplane.core.pool import Demand, Greeting
from dataplane.core.reasons import DiscardCause
from dataplane.core.spec import PoolMode
from dataplane.net.dialer import PENDING, Dial, begin
from dataplane.net.idle import IN, PEEK, Idle
from dataplane.net.sockopts import DONTWAIT, RDHUP

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dataplane.core.spec import PoolSpec
    from dataplane.net.counters import BackendTotals
    from dataplane.net.reactor import Reactor
    from dataplane.net.sockopts import SocketAddress

__all__ = ["Pool", "PoolOwner"]

RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 30.0
GREETING_BYTES: Final = 64 * 1024
"""What is read before a close: with a greeting unread, the backend would see a reset (RFC 1122, 4.2.2.13)."""
MAX_DIALS: Final = 64
"""Dials of one pool under way at once."""

_UNASKED: Final = frozenset({DiscardCause.EOF, DiscardCause.UNREAD})
"""Ends that the backend chose: the pool is short of one, and nothing else would notice."""


class PoolOwner(Protocol):
    """The backend that a pool's connections lead to."""

    usable: bool
    address: SocketAddress | None
    others: tuple[SocketAddress, ...]
    connect_timeout_s: float
    totals: BackendTotals

    @property
    def active(self) -> int:
        """How many clients it has, in all processes that share its limit."""

    def prefer(self, address: SocketAddress) -> None:
        """Take note that one of `others` has answered where `address` did not."""


class Pool:
    """The idle connections of one backend, in one process."""

    __slots__ = (
        "_dials",
        "_idle",
        "backend",
        "demand",
        "goal",
        "greeting",
        "limit",
        "reactor",
        "retry_at",
        "retry_s",
        "slack",
        "spec",
        "tick",
    )

    def __init__(self, reactor: Reactor, backend: PoolOwner, spec: PoolSpec, *, limit: int) -> None:
        self.reactor = reactor
        self.backend = backend
        self.spec = spec
        self.limit = limit
        """`limits.per_backend`; 0: none."""
        self.demand = Demand()
        self._idle: list[Idle] = []
        self._dials: set[Dial] = set()
        self.retry_s = 0.0
        """How long the last pause after a failure was, or is; 0: nothing has failed since the last success."""
        self.retry_at = 0.0
        """When that pause ends."""
        self.goal = 0
        """The target, as of the last time that something decided it."""
        self.slack = 0
        """How many below the goal are no reason to dial yet."""
        self.greeting = Greeting()
        self.tick = 0

    def __len__(self) -> int:
        return len(self._idle)

    @property
    def held(self) -> int:
        """How many connections the pool accounts for, dials included."""
        return len(self._idle) + len(self._dials)

    def configure(self, spec: PoolSpec, *, limit: int) -> None:
        """Take new settings; connections that they do not concern stay."""
        if spec.mode is not self.spec.mode:
            self.clear(DiscardCause.CHANGED)
        self.spec = spec
        self.limit = limit
        for idle in self._idle[: max(0, len(self._idle) - spec.max_idle)]:
            self.discard(idle, DiscardCause.SURPLUS)
        self._expire(self.reactor.now)
        self.restock()
        self._schedule()

    # -- taking and giving ----------------------------------------------------------------------------

    def take(self) -> Idle | None:
        """Return a live connection, which is the caller's from now on, or None.

        It stays registered in the epoll with its `mask`, under a handler that the caller replaces.
        """
        backend = self.backend
        if self.spec.mode is PoolMode.OFF:
            return None
        if self.demand.arrived(self.reactor.now) or self.limit:
            self._aim()
        idle_list = self._idle
        while idle_list:
            idle = idle_list[-1]
            try:
                waiting = idle.sock.recv(1, PEEK)
            except BlockingIOError:
                idle_list.pop()
                backend.totals.hits += 1
                return idle
            except OSError:
                waiting = b""
            cause = DiscardCause.UNREAD if waiting else DiscardCause.EOF
            if waiting and self.spec.mode is PoolMode.PRECONNECT:
                age_s = self.spec.greeting_age_s
                if not age_s or self.reactor.now - idle.born_at < age_s:
                    idle_list.pop()
                    backend.totals.hits += 1
                    return idle
                cause = DiscardCause.GREETED
            self.discard(idle, cause)
        backend.totals.misses += 1
        return None

    def put(
        self, sock: socket.SocketType, mask: int, born_at: float, dialled_to: SocketAddress | None
    ) -> None:
        """Take back a connection whose client is done (`reuse`).

        Args:
            sock: It.
            mask: What epoll reports of it.
            born_at: When it was connected.
            dialled_to: Where it leads; None: nobody else may have it.
        """
        reactor, spec, address = self.reactor, self.spec, self.backend.address
        now = reactor.now
        cause: DiscardCause | None = None
        is_ours = dialled_to is not None and (dialled_to is address or dialled_to == address)
        if spec.mode is not PoolMode.REUSE or not is_ours:
            cause = DiscardCause.CHANGED
        elif not self.backend.usable:
            cause = DiscardCause.UNUSABLE
        elif len(self._idle) >= spec.max_idle or (
            self.limit and self.backend.active + self.held >= self.limit
        ):
            cause = DiscardCause.FULL
        elif spec.max_age_s and now - born_at >= spec.max_age_s:
            cause = DiscardCause.AGE
        if cause is not None:
            self.refuse(sock, cause)
            return
        idle = Idle(self, sock, dialled_to, born_at, now)
        fd = sock.fileno()
        if mask == IN:
            reactor.handlers[fd] = idle
        elif mask < 0:
            reactor.watch(fd, idle, IN)
        else:
            reactor.handlers[fd] = idle
            reactor.epoll.modify(fd, IN)
        self._idle.append(idle)
        if not self.tick:
            self._schedule()

    def refuse(self, sock: socket.SocketType, cause: DiscardCause) -> None:
        """Close a connection that does not come back into the pool."""
        self.backend.totals.discarded[cause] += 1
        self.reactor.forget(sock.fileno())
        sock.close()

    def displace(self) -> bool:
        """Give up a dial or an idle connection, so that a client may dial under `limits.per_backend`."""
        if self._dials:
            self._dials.pop().cancel()
            return True
        if self._idle:
            self.discard(self._idle[0], DiscardCause.DISPLACED)
            return True
        return False

    def discard(self, idle: Idle, cause: DiscardCause) -> None:
        """Close one idle connection."""
        if idle not in self._idle:
            return
        self._idle.remove(idle)
        self.backend.totals.discarded[cause] += 1
        self.reactor.forget(idle.sock.fileno())
        with contextlib.suppress(OSError):  # nothing to read (BlockingIOError is one), or reset
            idle.sock.recv(GREETING_BYTES, DONTWAIT)
        idle.sock.close()
        if cause in _UNASKED and len(self._idle) < self.spec.min_idle:
            self._back_off()

    def greeted(self, idle: Idle) -> None:
        """Take note that the backend has spoken on an idle connection: it is not kept for long."""
        wheel, age_s = self.reactor.wheel, self.spec.greeting_age_s
        self.greeting.heard(self.reactor.now)
        if age_s and (not self.tick or self.tick * wheel.resolution_s > idle.born_at + age_s):
            wheel.move(self, idle.born_at + age_s)

    def clear(self, cause: DiscardCause) -> None:
        """Close all of them, and the dials under way."""
        for dial in self._dials:
            dial.cancel()
        self._dials.clear()
        self.goal = 0
        self.greeting.forget()
        while self._idle:
            self.discard(self._idle[-1], cause)
        self.reactor.wheel.cancel(self)
        self.retry_s = self.retry_at = 0.0

    def keep(self, addresses: Sequence[SocketAddress]) -> None:
        """Close those that lead to none of `addresses`."""
        for idle in [idle for idle in self._idle if idle.target not in addresses]:
            self.discard(idle, DiscardCause.CHANGED)

    # -- dialling ahead -------------------------------------------------------------------------------

    def target(self) -> int:
        """Return how many idle connections there should be now."""
        spec, backend = self.spec, self.backend
        if spec.mode is PoolMode.OFF or not backend.usable or backend.address is None:
            return 0
        target, now = spec.min_idle, self.reactor.now
        if spec.mode is PoolMode.PRECONNECT:
            lasts_s = spec.idle_timeout_s
            if spec.greeting_age_s and self.greeting.is_known(now):
                target, lasts_s = 0, min(lasts_s or spec.greeting_age_s, spec.greeting_age_s)
            target = min(max(self.demand.target(now, idle_timeout_s=lasts_s), target), spec.max_idle)
        if self.limit:
            target = min(target, self.limit - backend.active)
        return max(0, target)

    def _aim(self) -> None:
        self.goal = goal = self.target()
        self.slack = max(0, min(self.demand.batch - 1, goal // 2, goal - self.spec.min_idle))

    def refill(self) -> None:
        """Dial up to the goal after a client has come, unless a failure asks for patience."""
        missing = self.goal - len(self._idle) - len(self._dials)
        if missing <= self.slack or self.reactor.now < self.retry_at:
            return
        missing = min(missing, MAX_DIALS - len(self._dials))
        for _ in range(missing):
            if not self._dial():
                break

    def restock(self) -> None:
        """Find the target anew, and dial up to it."""
        self._aim()
        self.refill()

    def _dial(self) -> bool:
        address = self.backend.address
        assert address is not None  # noqa: S101 - the target is 0 without an address
        reactor = self.reactor
        started_at = reactor.clock()
        try:
            sock, code = begin(address, reactor.accept_ceiling)
        except OSError:
            self._back_off()
            return False
        if code == 0:
            idle = self._add(sock, address, started_at, reactor.clock())
            reactor.watch(sock.fileno(), idle, IN)
        elif code == PENDING:
            dial = Dial(reactor, address, self.backend.others, sock, code)
            dial.started_at = started_at
            self._dials.add(dial)
            dial.start(self, self.backend.connect_timeout_s)
        else:
            sock.close()
            if not self.backend.others or not self._dial_elsewhere(address, sock, code):
                self._back_off()
                return False
        return True

    def _dial_elsewhere(self, address: SocketAddress, sock: socket.SocketType, code: int) -> bool:
        dial = Dial(self.reactor, address, self.backend.others, sock, code)
        if dial.start_elsewhere(self, self.backend.connect_timeout_s, code) != PENDING:
            return False
        self._dials.add(dial)
        return True

    def dialled(self, dial: Dial, code: int) -> None:
        """Take a connection that is ready, or its failure."""
        self._dials.discard(dial)
        if code:
            self._back_off()
        else:
            if dial.failure:
                self.backend.prefer(dial.target)
            idle = self._add(dial.sock, dial.target, dial.started_at, self.reactor.now)
            self.reactor.handlers[dial.fd] = idle
            self.reactor.epoll.modify(dial.fd, IN)

    def _add(self, sock: socket.SocketType, target: SocketAddress, started_at: float, now: float) -> Idle:
        self.demand.dialled(now - started_at)
        self.retry_s = self.retry_at = 0.0
        idle = Idle(self, sock, target, now, now)
        self._idle.append(idle)
        if not self.tick:
            self._schedule()
        return idle

    def _back_off(self) -> None:
        """Dial no more for a while; what fails together counts once."""
        now = self.reactor.now
        if now < self.retry_at:
            return
        self.retry_s = min(MAX_RETRY_S, self.retry_s * 2 or RETRY_S)
        self.retry_at = now + self.retry_s
        self.reactor.wheel.cancel(self)
        self._schedule()

    # -- growing old ----------------------------------------------------------------------------------

    def on_timer(self, now: float) -> None:
        """Close what is too old, dial what is missing, and set the next deadline."""
        self._expire(now)
        self.restock()
        if not self.tick:
            self._schedule()

    def _expire(self, now: float) -> None:
        for idle in list(self._idle):
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

    def _schedule(self) -> None:
        times = [when for idle in self._idle for _, when in self._ends(idle)]
        again_at = self.greeting.until if self.spec.min_idle else 0.0
        times += [when for when in (self.retry_at, again_at) if when > self.reactor.now]
        if times:
            self.reactor.wheel.move(self, min(times))
