"""What a supervisor's node is made of, and how what its checks find reaches the workers.

It is the same node as in a single process, so that a snapshot, an override and a check mean the same. But its pools
stay empty, it has no listeners, and so no connection.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from dataplane.core.spec import PoolMode, PoolSpec
from dataplane.net.backend import Backend
from dataplane.net.service import Service
from dataplane.node.takeover_state import found

if TYPE_CHECKING:
    from collections.abc import Callable

    from dataplane.core.spec import BackendSpec, ServiceSpec
    from dataplane.ipc.messages import Found
    from dataplane.net.connect import Observer
    from dataplane.net.reactor import Reactor

__all__ = ["CheckRelay", "UnusedParts"]

NO_POOL: Final = PoolSpec(PoolMode.OFF, 0, 0, 0.0, 0.0, 0.0)


class _Known(Backend):
    """A backend that is never connected to but by checks."""

    __slots__ = ()

    def configure(self, spec: BackendSpec, service: ServiceSpec, now: float) -> None:
        """Take a new configuration, without its pool."""
        super().configure(spec, replace(service, pool=NO_POOL), now)


class UnusedParts:
    """Services and backends that no client comes to (dataplane.node.running_service.Parts)."""

    def service(self, reactor: Reactor, spec: ServiceSpec, observer: Observer) -> Service:
        """Make a service without backends."""
        return Service(reactor, spec, observer)

    def backend(self, reactor: Reactor, spec: BackendSpec, service: ServiceSpec) -> Backend:
        """Make a backend without a pool."""
        return _Known(reactor, spec, replace(service, pool=NO_POOL))


class CheckRelay:
    """Passes on what workers have to know of verdicts.

    Args:
        tell: Called with them.
    """

    def __init__(self, tell: Callable[[list[Found]], None]) -> None:
        self._tell = tell
        self.ejected: set[tuple[int, str, str]] = set()
        """Which worker's process has ejected which backend of which service."""

    def judged(self, service: str, backend: Backend, *, changed: bool, passed: bool) -> None:
        """Take note of a verdict: a worker wants to know it if it has changed something, or ends an ejection there."""
        ejected = any(one[1:] == (service, backend.id) for one in self.ejected)
        if changed or (passed and ejected):
            self._tell([found(service, backend, passed=passed)])
