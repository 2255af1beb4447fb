"""Idle backend connections, ready for a client. What may be in here is a safety rule.

Theory of operation:

1. `preconnect`: a connection in the pool never carried a client's byte, and serves one client. What the
   backend says first (a greeting) stays in its socket, unread, for that client: it is only peeked. A server that
   has greeted waits for a login, and not for long: MariaDB for 10 s, NATS for 2 s, from its accept on. So such a
   connection is handed out until it is `greeting_age` old, which is counted from the connect, as the earliest
   that the server can have begun to count.
2. `reuse`: a connection in the pool has nothing to read. The first readable event, data or EOF, discards it.
3. An idle connection is in the epoll, so most deaths are seen at once (net.idle); the hand-over looks once more.
4. A pool dials ahead (net.refiller), up to a goal that follows demand (net.goal).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dataplane.core.reasons import DiscardCause
from dataplane.core.spec import PoolMode
from dataplane.net.calls import IN, NOTHING, close, peek
from dataplane.net.goal import Goal, PoolShare
from dataplane.net.idle import Idle
from dataplane.net.refiller import Refiller
from dataplane.net.tls_leg import farewell

if TYPE_CHECKING:
    from dataplane.core.spec import PoolSpec
    from dataplane.net.backend_tls import BackendTls
    from dataplane.net.goal import PoolOwner
    from dataplane.net.leg import Leg
    from dataplane.net.reactor import Reactor
    from dataplane.net.sockopts import SocketAddress
    from dataplane.net.tls import Channel


# As in net.flow: a lookup of these would be a call into Python.
_OFF: Final = PoolMode.OFF
_PRECONNECT: Final = PoolMode.PRECONNECT
_REUSE: Final = PoolMode.REUSE


def _is_current(channel: Channel | None, tls: BackendTls | None) -> bool:
    """Tell whether a connection's TLS is what would be begun now: an authority or our certificate may have changed."""
    return channel is not None and tls is not None and channel.context is tls.context


class Pool:
    """The idle connections of one backend, in one process.

    Args:
        reactor: Of this process.
        backend: Whose connections.
        spec: The settings.
        limit: `limits.per_backend`; 0: none.
        share: What this process may hold beside others; None: there are no others.
    """

    __slots__ = ("backend", "goal", "refiller", "shelf", "totals")

    def __init__(
        self,
        reactor: Reactor,
        backend: PoolOwner,
        spec: PoolSpec,
        *,
        limit: int,
        share: PoolShare | None = None,
    ) -> None:
        self.backend = backend
        self.totals = backend.totals
        self.goal = Goal(reactor, backend, spec, limit, share or PoolShare())
        self.refiller = Refiller(reactor, backend, spec, self.goal)
        self.shelf = self.refiller.shelf

    def __len__(self) -> int:
        return len(self.shelf.idle)

    @property
    def own(self) -> int:
        """How many connections it accounts for, dials included."""
        return len(self.shelf.idle) + len(self.refiller.dials)

    @property
    def held(self) -> int:
        """How many it accounts for together with its siblings in other processes."""
        return self.goal.share.held(self.own)

    def configure(self, spec: PoolSpec, *, limit: int) -> None:
        """Take new settings; connections that they do not concern stay."""
        if spec.mode is not self.goal.mode:
            self.clear(DiscardCause.CHANGED)
        self.goal.configure(spec, limit)
        self.shelf.configure(spec)
        self.refiller.restock()

    def take(self) -> Idle | None:
        """Return a live connection, which is the caller's from now on, or None.

        It stays registered in the epoll with its `mask`, under a handler that the caller replaces.
        """
        goal, totals, idle_list = self.goal, self.totals, self.shelf.idle
        if goal.mode is _OFF:
            return None
        spec = goal.spec
        now = goal.reactor.now
        if goal.demand.arrived(now) or goal.limit:
            goal.aim()
        while idle_list:
            idle = idle_list[-1]
            if idle.tls is not None:
                cause = self._look_inside(idle)
            elif (waiting := peek(idle.fd)) == NOTHING:
                cause = None
            elif waiting <= 0:
                cause = DiscardCause.EOF
            elif goal.mode is _PRECONNECT:
                age_s = spec.greeting_age_s
                cause = DiscardCause.GREETED if age_s and now - idle.born_at >= age_s else None
            else:
                cause = DiscardCause.UNREAD
            if cause is None:
                idle_list.pop()
                totals.hits += 1
                if goal.share.is_shared:
                    left = len(idle_list)
                    goal.share.publish(left, left + len(self.refiller.dials))
                return idle
            self.shelf.discard(idle, cause)
        totals.misses += 1
        return None

    def _look_inside(self, idle: Idle) -> DiscardCause | None:
        """Take a last look at a connection with TLS; return why a client cannot have it, or None."""
        tls, spec = self.backend.tls, self.goal.spec
        channel = idle.tls
        assert channel is not None  # noqa: S101 - the caller looked
        if not _is_current(channel, tls):
            return DiscardCause.CHANGED
        cause = idle.listen()
        if cause is None and channel.early and spec.greeting_age_s:
            is_old = self.goal.reactor.now - idle.born_at >= spec.greeting_age_s
            cause = DiscardCause.GREETED if is_old else None
        return cause

    def put(self, leg: Leg, born_at: float, dialled_to: SocketAddress | None) -> None:
        """Take back a connection whose client is done (`reuse`).

        Args:
            leg: It, with what epoll reports of it.
            born_at: When it was connected.
            dialled_to: Where it leads; None: nobody else may have it.
        """
        goal, backend, idle_list = self.goal, self.backend, self.shelf.idle
        reactor, spec, share = goal.reactor, goal.spec, goal.share
        now, address = reactor.now, backend.address
        cause: DiscardCause | None = None
        is_ours = dialled_to is not None and (dialled_to is address or dialled_to == address)
        has_changed = (backend.tls is not None or leg.tls is not None) and not _is_current(
            leg.tls, backend.tls
        )
        if goal.mode is not _REUSE or not is_ours or has_changed:
            cause = DiscardCause.CHANGED
        elif not backend.usable:
            cause = DiscardCause.UNUSABLE
        elif (
            (share.is_shared and not share.has_room(self.own, goal.size(), now))
            or len(idle_list) >= spec.max_idle
            or (goal.limit and backend.active + self.own >= goal.limit)
        ):
            cause = DiscardCause.FULL
        elif spec.max_age_s and now - born_at >= spec.max_age_s:
            cause = DiscardCause.AGE
        fd, mask = leg.fd, leg.mask
        if cause is not None:
            backend.totals.discarded[cause] += 1
            reactor.forget(fd)
            farewell(leg)
            close(fd)
            return
        idle = Idle(self.shelf, fd, dialled_to, born_at, now)
        idle.nagle = leg.nagle
        idle.tls = leg.tls
        if mask < 0:
            reactor.watch(fd, idle, IN)
        else:
            reactor.handlers.put(fd, idle)
            if mask != IN:
                reactor.epoll.modify(fd, IN)
        idle_list.append(idle)
        if not self.shelf.tick:
            self.shelf.schedule()
        if share.is_shared:
            share.publish(len(idle_list), self.own)

    def displace(self) -> bool:
        """Give up a dial or an idle connection, so that a client may dial under `limits.per_backend`."""
        if self.refiller.cancel_one():
            return True
        if self.shelf.idle:
            self.shelf.discard(self.shelf.idle[0], DiscardCause.DISPLACED)
            return True
        return False

    def clear(self, cause: DiscardCause) -> None:
        """Close all of them, and the dials under way; have no claim to any."""
        self.shelf.clear(cause)
        self.refiller.clear()
        self.goal.share.clear()
