"""One running backend: what the connection path reads and counts of it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final, NamedTuple

from dataplane.core.health import ActiveHealth, HealthState
from dataplane.core.reasons import DiscardCause, SkipReason
from dataplane.core.selection import Standing
from dataplane.core.spec import OperatorState
from dataplane.net.counters import BackendTotals
from dataplane.net.pool import Pool
from dataplane.net.sockopts import SocketAddress, to_sockaddr

if TYPE_CHECKING:
    from collections.abc import MutableSequence, Sequence

    from dataplane.core.spec import BackendSpec, ServiceSpec
    from dataplane.net.backend_tls import BackendTls
    from dataplane.net.goal import PoolShare
    from dataplane.net.reactor import Reactor


class Absence(NamedTuple):
    """Why a backend has no address."""

    state: HealthState
    """What that makes of it."""
    reason: SkipReason
    cause: str
    """For people."""
    since: float = 0.0
    """Monotonic seconds; 0: since the backend is."""


ABSENT: Final = Absence(HealthState.UNKNOWN, SkipReason.UNRESOLVED, "not resolved yet")


class Backend:
    """A backend of one service in one process. It lives as long as its id is configured."""

    __slots__ = (
        "absence",
        "address",
        "cells",
        "connect_timeout_s",
        "draining_since",
        "failures",
        "health",
        "healthy",
        "id",
        "named",
        "others",
        "own",
        "pool",
        "ramp_from",
        "reachable",
        "removed",
        "row",
        "spec",
        "standing",
        "tls",
        "totals",
        "usable",
    )

    def __init__(
        self, reactor: Reactor, spec: BackendSpec, service: ServiceSpec, share: PoolShare | None = None
    ) -> None:
        self.id = spec.id
        self.spec = spec
        """As configured, with the operator's overrides applied."""
        self._read_address(spec.address)
        self.own = 0
        """Clients' connections of this process to it, those being dialled included.

        Whoever changes it writes it into `cells[row]`, too.
        """
        self.cells: MutableSequence[int] | memoryview = [0]
        """Where other processes see it: a cell and not a method, for it is written for each connection."""
        self.row = 0
        self.failures = 0
        """Consecutive failures that passive health has counted."""
        self.health = ActiveHealth(service.active.rise, service.active.fall, now=reactor.now)
        self.healthy = self.address is not None
        """Neither down nor ejected, and resolved."""
        self.reachable = self.healthy
        """Resolved, and nobody has found that no connection can be made."""
        self.usable = self.healthy and spec.weight > 0 and spec.state is OperatorState.ENABLED
        """Healthy, enabled and weighted: set whenever one of them changes."""
        self.ramp_from: float | None = reactor.now
        """When slow start began (monotonic seconds); None: not ramping."""
        self.standing = self.stand(1.0)
        """What the selection makes of it; kept, because 10,000 of them take 8 ms to make."""
        self.removed = False
        self.draining_since = None if spec.state is OperatorState.ENABLED else reactor.now
        self.connect_timeout_s = service.timeouts.connect_s
        self.totals = BackendTotals()
        self.tls: BackendTls | None = None
        """How TLS to it begins; None: not at all."""
        self.pool = Pool(reactor, self, service.pool, limit=service.limits.per_backend, share=share)

    def stand(self, ramp: float) -> Standing[Backend]:
        """Return its standing as it is now; `ramp` is the share of its weight that slow start allows, 0..1."""
        spec = self.spec
        enabled = spec.state is OperatorState.ENABLED
        return Standing(self, spec.weight, spec.tier, enabled, self.healthy, self.reachable, ramp)

    def __repr__(self) -> str:
        return f"<Backend {self.id} at {self.spec.address}>"

    @property
    def active(self) -> int:
        """Connections to it that limits and balancers count: those of all processes that count together."""
        return self.own

    def configure(self, spec: BackendSpec, service: ServiceSpec, now: float) -> None:
        """Take a new configuration; what it does not change stays as it is."""
        if spec.address != self.spec.address:
            self._read_address(spec.address)
            self.pool.clear(DiscardCause.CHANGED)
        self.set_spec(spec, now)
        self.health.reconfigure(service.active.rise, service.active.fall)
        self.connect_timeout_s = service.timeouts.connect_s
        self.pool.configure(service.pool, limit=service.limits.per_backend)

    def use_tls(self, tls: BackendTls | None, *, ahead: bool) -> None:
        """Begin TLS to it from now on, or not.

        Args:
            tls: How; the same object as before: as before.
            ahead: Whether the pool may do the handshake ahead: nothing of the client goes before or into it.
        """
        refiller = self.pool.refiller
        if tls is not self.tls or ahead is not refiller.shakes_ahead:
            self.tls = tls
            refiller.shakes_ahead = ahead
            self.pool.clear(DiscardCause.CHANGED)
            refiller.restock()

    def _read_address(self, text: str) -> None:
        address = to_sockaddr(text)
        self.address: SocketAddress | None = address
        """Where clients, the pool and checks connect first; None: nowhere, see `absence`."""
        self.others: tuple[SocketAddress, ...] = ()
        """The further addresses of its host name, in the order in which they are tried."""
        self.named = address is None or ("%" in text and address.family == socket.AF_INET6)
        """Whether its address is a host name or at a network interface by name, and may so become another."""
        self.absence = ABSENT if address is None else None
        """Why it has no address."""

    def locate(self, addresses: Sequence[SocketAddress], absence: Absence | None) -> None:
        """Take new addresses; the one that worked last stays the first, if it is still among them.

        Args:
            addresses: In the order in which they should be tried; empty: nobody connects to it.
            absence: Why there is none; None if there are some.
        """
        if self.address is not None and self.address in addresses:
            addresses = [self.address, *(one for one in addresses if one != self.address)]
        self.address = addresses[0] if addresses else None
        self.others = tuple(addresses[1:])
        self.absence = absence
        self.pool.shelf.keep(addresses)

    def prefer(self, address: SocketAddress) -> None:
        """Make one of `others` the first: it works, and what was the first does not."""
        if self.address is None or address not in self.others:
            return
        self.others = (*(one for one in self.others if one != address), self.address)
        self.address = address
        self.pool.shelf.keep((address,))

    def set_spec(self, spec: BackendSpec, now: float) -> None:
        """Take `spec`, and note when a drain begins or ends."""
        draining = spec.state is not OperatorState.ENABLED
        if draining and self.draining_since is None:
            self.draining_since = now
        elif not draining:
            self.draining_since = None
        self.spec = spec
