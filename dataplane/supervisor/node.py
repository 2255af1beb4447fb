"""What a supervisor knows of its services: configuration, overrides and health, without a single connection.

It is the same node as in a single process, so that a snapshot, an override and a check mean the same. But its pools
stay empty, it has no listeners, and what its checks find goes to the workers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from dataplane.core.spec import PoolMode, PoolSpec
from dataplane.net.backend import Backend
from dataplane.node.node import Node
from dataplane.node.takeover_state import found

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from dataplane.core.health import Outcome
    from dataplane.core.spec import BackendSpec, ServiceSpec
    from dataplane.net.prober import Target
    from dataplane.net.reactor import Reactor
    from dataplane.net.service import Service
    from dataplane.telemetry.events import Events
    from dataplane.worker.node import Found
    from schemas.health import Verdict

__all__ = ["SupervisorNode"]

NO_POOL: Final = PoolSpec(PoolMode.OFF, 0, 0, 0.0, 0.0, 0.0)


class _Known(Backend):
    """A backend that is never connected to but by checks."""

    __slots__ = ()

    def configure(self, spec: BackendSpec, service: ServiceSpec, now: float) -> None:
        """Take a new configuration, without its pool."""
        super().configure(spec, replace(service, pool=NO_POOL), now)


class SupervisorNode(Node):
    """A node that relays nothing.

    Args:
        reactor: For timers.
        events: Where happenings are told.
        random: For checks.
        judge: Called with verdicts that workers should know.
        active: Tells the connections of a backend (service, id) in all workers.
    """

    def __init__(
        self,
        reactor: Reactor,
        events: Events,
        random: Random,
        judge: Callable[[list[Found]], None],
        active: Callable[[str, str], int],
    ) -> None:
        super().__init__(reactor, events, random)
        self._judge = judge
        self._active = active
        self.ejected: set[tuple[int, str, str]] = set()
        """Which worker's process has ejected which backend of which service."""

    def new_backend(self, spec: BackendSpec, service: ServiceSpec) -> Backend:
        """Make a backend."""
        return _Known(self.reactor, spec, replace(service, pool=NO_POOL))

    def on_verdict(self, target: Target, outcome: Outcome) -> None:
        """Take what a check has found, and tell the workers what they have to know of it."""
        running = self.running.get(target.service)
        backend = running.service.backends.get(target.backend_id) if running else None
        before = (backend.health.state, backend.health.reachable) if backend else None
        super().on_verdict(target, outcome)
        if backend is None or backend.spec.address != target.address:
            return
        ejected = any(one[1:] == (target.service, target.backend_id) for one in self.ejected)
        if (backend.health.state, backend.health.reachable) != before or (outcome.ok and ejected):
            self._judge([found(target.service, backend, passed=outcome.ok)])

    def decide(self, service: str, backend_id: str, verdict: Verdict) -> bool:
        """Take somebody else's verdict, and tell the workers."""
        known = super().decide(service, backend_id, verdict)
        if known:
            backend = self.running[service].service.backends[backend_id]
            self._judge([found(service, backend, passed=verdict.state == "up")])
        return known

    def drain_backend(self, service: Service, backend: Backend) -> int:
        """Return how many connections the workers drain now."""
        return self._active(service.name, backend.id)
