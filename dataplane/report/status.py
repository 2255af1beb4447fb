"""What status and explain show of the running state."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import TYPE_CHECKING, Final

from dataplane.core.balance.sticky_table import client_key
from dataplane.core.reasons import SkipReason
from dataplane.core.spec import OperatorState
from dataplane.node.sticky_tables import tables_hash
from dataplane.report.outcomes import Outcomes
from dataplane.telemetry.events import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dataplane.net.backend import Backend
    from dataplane.net.flow import Flow
    from dataplane.net.listener import Listener
    from dataplane.net.service import Service
    from dataplane.node.node import Node
    from dataplane.node.running_service import RunningService
    from schemas.replies import Explanation, Skipped
    from schemas.status import BackendStatus, ListenerStatus, Override, ServiceStatus

__all__ = ["Reporter", "live_bytes"]

SLICE: Final = 250
"""Backends described between two turns of the loop."""


def live_bytes(flows: Iterable[Flow]) -> dict[Backend | None, tuple[int, int]]:
    """Return what the connections in place have carried so far (in, out), by backend."""
    sums: dict[Backend | None, tuple[int, int]] = {}
    for flow in flows:
        server = flow.server
        if server is not None:
            sent, answered = sums.get(flow.backend, (0, 0))
            sums[flow.backend] = (sent + flow.client.received, answered + server.received)
    return sums


class Reporter:
    """Describes a node. `wall_clock` is Unix seconds; moments are kept on the monotonic clock inside."""

    def __init__(self, node: Node, wall_clock: Callable[[], float]) -> None:
        self.outcomes = Outcomes(node)
        self._node = node
        self._wall_clock = wall_clock

    def _time(self, monotonic: float) -> str:
        return rfc3339(self._wall_clock() - (self._node.reactor.clock() - monotonic))

    async def services(self) -> dict[str, ServiceStatus]:
        """Describe every service, those that are leaving as well."""
        described: dict[str, ServiceStatus] = {}
        for running in [*self._node.leaving.values(), *self._node.running.values()]:
            described[running.service.name] = await self.service(running)
        return described

    async def service(self, running: RunningService) -> ServiceStatus:
        """Describe one service, in slices."""
        service = running.service
        totals, live = service.totals, live_bytes(service.flows)
        backends = []
        for index, backend in enumerate([*service.backends.values(), *service.leaving]):
            backends.append(self._backend(running, backend, live.get(backend, (0, 0))))
            if index % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        return {
            "mode": service.spec.mode.value,
            "table_hash": tables_hash(running.tables),
            "panic": service.selection.panic,
            "tier": service.selection.tier,
            "active": service.own,
            "queued": len(service.queue),
            "listeners": [
                self._listener(one) for one in self._node.listeners.values() if one.service is service
            ],
            "totals": {
                "connections": totals.connections,
                "bytes_in": totals.bytes_in + sum(sent for sent, _ in live.values()),
                "bytes_out": totals.bytes_out + sum(answered for _, answered in live.values()),
                "retries": totals.retries,
                "closed": {reason.value: count for reason, count in totals.closed.items() if count},
            },
            "recent": self.outcomes.of(service),
            "backends": backends,
        }

    @staticmethod
    def _listener(listener: Listener) -> ListenerStatus:
        return {
            "address": listener.address,
            "state": "paused" if listener.paused else "accepting",
            "accepted": listener.accepted,
        }

    def _backend(self, running: RunningService, backend: Backend, live: tuple[int, int]) -> BackendStatus:
        spec, totals = backend.spec, backend.totals
        health = running.health(backend)
        status: BackendStatus = {
            "id": backend.id,
            "address": spec.address,
            "weight": spec.weight,
            "tier": spec.tier,
            "state": spec.state.value,
            "overridden": self._overridden(running.service, backend),
            "health": {
                "state": health.state.value,
                "cause": health.cause,
                "since": self._time(health.since),
                "reachable": backend.reachable,
            },
            "active": backend.own,
            "pooled": len(backend.pool),
            "draining_since": None if backend.draining_since is None else self._time(backend.draining_since),
            "totals": {
                "connections": totals.connections,
                "connect_failures": totals.connect_failures,
                "bytes_in": totals.bytes_in + live[0],
                "bytes_out": totals.bytes_out + live[1],
                "ejections": totals.ejections,
                "pool": {
                    "hits": totals.hits,
                    "misses": totals.misses,
                    "discarded": {cause.value: count for cause, count in totals.discarded.items() if count},
                },
            },
        }
        if backend.removed:
            status["removed"] = True
        return status

    def _overridden(self, service: Service, backend: Backend) -> dict[str, Override]:
        override = self._node.overrides.get((service.name, backend.id), {})
        return {
            field: {"value": getattr(value, "value", value), "since": self._time(since)}
            for field, (value, since) in override.items()
        }

    def explain(self, running: RunningService, client: str) -> Explanation:
        """Say which backends a new connection from `client` would try, in order, and why not the others.

        Raises:
            ValueError: `client` is no IP address.
        """
        address = str(ipaddress.ip_address(client))
        self._node.rebuild_stale()
        service = running.service
        key = client_key(address.encode(), service.spec.seed)
        limit = service.spec.limits.per_backend
        candidates = list(service.selection.order(key))
        full = [backend for backend in candidates if limit and backend.active >= limit]
        skipped: list[Skipped] = [
            {"id": backend.id, "reason": SkipReason.LIMIT_PER_BACKEND.value} for backend in full
        ]
        skipped.extend(
            {"id": backend.id, "reason": self._skip_reason(running, backend).value}
            for backend in service.backends.values()
            if backend not in candidates
        )
        return {
            "service": service.name,
            "client": address,
            "panic": service.selection.panic,
            "candidates": [
                {"id": backend.id, "address": backend.spec.address}
                for backend in candidates
                if backend not in full
            ],
            "skipped": skipped,
        }

    def _skip_reason(self, running: RunningService, backend: Backend) -> SkipReason:
        spec = backend.spec
        if spec.state is not OperatorState.ENABLED:
            return SkipReason(spec.state.value)
        if not spec.weight:
            return SkipReason.WEIGHT_ZERO
        if backend.absence is not None:
            return backend.absence.reason
        if running.service.selection.panic and not backend.reachable:
            return SkipReason.UNREACHABLE
        return SkipReason(running.health(backend).state.value)
