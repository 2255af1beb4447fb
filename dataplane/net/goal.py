"""How many idle connections a pool should hold, and what other processes hold beside it.

Theory of operation:

1. The target is what demand asks for (`core.pool.Demand`) and at least `min_idle`, never above `max_idle`, and never so
   that clients, idle connections and dials together exceed `limits.per_backend`.
2. Under load dials are made in batches: `slack` connections may be missing before it begins, and then all are dialled.
3. At a backend that greets, connections that nobody takes within `greeting_age` are in vain: there the target is
   what demand asks for in that time, and `min_idle`, which no demand asks for, does not count (`core.pool.Greeting`).
4. What other processes hold of the same backend, and what is left for this one, a `PoolShare` knows.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, ClassVar, Protocol

from dataplane.core.pool import Demand, Greeting
from dataplane.core.spec import PoolMode

if TYPE_CHECKING:
    from dataplane.core.spec import BackendSpec, PoolSpec
    from dataplane.net.backend_tls import BackendTls
    from dataplane.net.counters import BackendTotals
    from dataplane.net.reactor import Reactor
    from dataplane.net.sockopts import SocketAddress


class PoolOwner(Protocol):
    """The backend that a pool's connections lead to."""

    usable: bool
    address: SocketAddress | None
    others: tuple[SocketAddress, ...]
    connect_timeout_s: float
    totals: BackendTotals
    id: str
    spec: BackendSpec
    tls: BackendTls | None
    """How TLS to it begins; None: not at all."""

    @property
    def active(self) -> int:
        """How many clients it has, in all processes that share its limit."""

    def prefer(self, address: SocketAddress) -> None:
        """Take note that one of `others` has answered where `address` did not."""


class PoolShare:
    """What this process may hold of a backend's idle connections: all of it, for there is no other process.

    Args:
        cap: The most that it may hold; 0: nothing.
    """

    __slots__ = ("cap",)

    is_shared: ClassVar = False
    """There are others: a field, which saves the calls of `has_room`, `claim` and `publish` where there are none."""

    def __init__(self, cap: int = sys.maxsize) -> None:
        self.cap = cap

    def configure(self, spec: PoolSpec) -> None:
        """Take new sizes, which are those of all processes together."""

    def part(self, least: int) -> int:
        """Return how many of `min_idle` are this process's to hold."""
        return least

    def held(self, own: int) -> int:
        """Return what all processes hold, dials included; `own` is this one's."""
        return own

    def has_room(self, own: int, size: int, now: float) -> bool:
        """Tell whether one more may be put back while all may hold `size` together."""
        raise NotImplementedError

    def claim(self, own: int, missing: int, size: int) -> int:
        """Return how many of `missing` may be dialled; others know before the first dial. `publish` ends a claim."""
        raise NotImplementedError

    def publish(self, idle: int, own: int) -> None:
        """Tell others what this process holds: idle connections, and with dials."""

    def clear(self) -> None:
        """Give up every claim: the pool holds nothing any more, and no dial."""


class Goal:
    """How many idle connections the pool of one backend should hold in this process, by its settings (as in Pool)."""

    __slots__ = (
        "backend",
        "count",
        "demand",
        "greeting",
        "least",
        "limit",
        "mode",
        "reactor",
        "share",
        "slack",
        "spec",
    )

    def __init__(
        self, reactor: Reactor, backend: PoolOwner, spec: PoolSpec, limit: int, share: PoolShare
    ) -> None:
        self.reactor = reactor
        self.backend = backend
        self.share = share
        self.demand = Demand()
        self.greeting = Greeting()
        self.count = 0
        """The target, as of the last time that something decided it."""
        self.slack = 0
        """How many below it are no reason to dial yet."""
        self.configure(spec, limit)

    def configure(self, spec: PoolSpec, limit: int) -> None:
        """Take new settings; `aim` acts on them."""
        self.spec, self.mode = spec, spec.mode
        self.limit = limit
        self.share.configure(spec)
        self.least = self.share.part(spec.min_idle)
        """This process's part of `min_idle`."""

    def take_part(self) -> None:
        """See how many of `min_idle` are this process's now."""
        if self.spec.min_idle:
            self.least = self.share.part(self.spec.min_idle)

    def size(self) -> int:
        """Return how many the pools of all processes may hold now."""
        size = self.spec.max_idle
        return max(0, min(size, self.limit - self.backend.active)) if self.limit else size

    def target(self) -> int:
        """Return how many idle connections there should be now, if `share` has no objection."""
        spec, backend = self.spec, self.backend
        if spec.mode is PoolMode.OFF or not backend.usable or backend.address is None:
            return 0
        target, now = self.least, self.reactor.now
        if spec.mode is PoolMode.PRECONNECT:
            lasts_s = spec.idle_timeout_s
            if spec.greeting_age_s and self.greeting.is_known(now):
                target, lasts_s = 0, min(lasts_s or spec.greeting_age_s, spec.greeting_age_s)
            target = min(max(self.demand.target(now, idle_timeout_s=lasts_s), target), spec.max_idle)
        if self.limit:
            target = min(target, self.limit - backend.active)
        return max(0, target)

    def aim(self) -> None:
        """Find the target anew."""
        self.count = goal = min(self.target(), self.share.cap)
        self.slack = max(0, min(self.demand.batch - 1, goal // 2, goal - self.least))
