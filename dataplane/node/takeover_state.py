"""What a process tells its successor, what that one makes of it, and how it hands over (see ipc.takeover)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dataplane.core.health import HealthState
from dataplane.errors import Refused
from dataplane.ipc.takeover import Offer
from dataplane.node.running_service import find
from schemas.api import BackendPatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dataplane.net.backend import Backend
    from dataplane.node.apply import Applier
    from dataplane.node.listeners import OwnDoors
    from dataplane.node.node import Node
    from dataplane.supervisor.dataplane import Supervisor
    from dataplane.supervisor.listening_sockets import SocketGroup
    from dataplane.worker.node import Found

__all__ = ["SingleHolder", "SupervisorHolder", "found", "inherit", "state_of", "verdicts_of"]


def found(service: str, backend: Backend, *, passed: bool) -> Found:
    """Return what active checks have found of a backend."""
    health = backend.health
    return service, backend.id, health.state.value, health.cause, health.reachable, passed


def verdicts_of(node: Node) -> list[Found]:
    """Return all that active checks have found."""
    return [
        found(name, backend, passed=False)
        for name, running in node.running.items()
        for backend in running.service.backends.values()
        if backend.health.state is not HealthState.UNKNOWN
    ]


def state_of(applier: Applier) -> dict[str, Any]:
    """Return what runs: the snapshot, the overrides and the health of backends."""
    node = applier.node
    verdicts = verdicts_of(node)
    return {
        "snapshot": json.loads("".join(applier.snapshot.text())),
        "overrides": [
            (
                service,
                backend,
                {field: getattr(value, "value", value) for field, (value, _) in fields.items()},
            )
            for (service, backend), fields in node.overrides.items()
        ],
        # Five fields each, and what came later beside them: a successor may be older than this process.
        "verdicts": [(*one[:4], one[5]) for one in verdicts],
        "unreachable": [one[:2] for one in verdicts if not one[4]],
        "saved": applier.saved,
    }


async def inherit(applier: Applier, state: Mapping[str, Any]) -> None:
    """Take over the overrides and the health that a process before this one knew; its snapshot runs already."""
    node = applier.node
    for service, backend_id, fields in state["overrides"]:
        await applier.patch(service, backend_id, BackendPatch(**fields))
    now = node.reactor.clock()
    unreachable = {(service, backend_id) for service, backend_id in state.get("unreachable", ())}
    for service, backend_id, health, cause, _ in state["verdicts"]:
        there = find(node.running, service, backend_id)
        if there is not None:
            running, backend = there
            reachable = (service, backend_id) not in unreachable
            backend.health.decide(HealthState(health), cause, now, reachable=reachable)
            running.reassess(backend)


class SingleHolder:
    """Hands over the listeners of a process without workers (dataplane.ipc.takeover.Holder).

    Args:
        applier: What runs.
        doors: Its listeners.
        on_released: Called when another process accepts, and may have the API's socket.
    """

    def __init__(self, applier: Applier, doors: OwnDoors, on_released: Callable[[], None]) -> None:
        self._applier = applier
        self._doors = doors
        self._on_released = on_released

    async def offer(self) -> Offer:
        """Offer every listener, and change nothing until `keep` or `release`."""
        await self._applier.lock.acquire()
        node = self._applier.node
        listeners = list(node.listeners.values())
        node.events.emit("takeover_begins", sockets=len(listeners))
        return Offer(
            state_of(self._applier), [one.address for one in listeners], [one.sock for one in listeners]
        )

    def keep(self, cause: str) -> None:
        """Go on: nobody took over."""
        self._applier.lock.release()
        self._applier.node.events.emit("takeover_failed", cause=cause)

    async def release(self) -> None:
        """Stop accepting; who waits in a queue is the successor's."""
        self._applier.refusal = Refused(503, "handed_over", "another process has taken over; ask again")
        self._doors.leave_all()
        self._on_released()
        self._applier.lock.release()


class SupervisorHolder:
    """Hands over the listening sockets of a supervisor (dataplane.ipc.takeover.Holder).

    Args:
        supervisor: Whose workers accept.
        applier: What runs.
        sockets: What they accept from.
        on_released: Called when another process accepts, and may have the API's socket.
    """

    def __init__(
        self, supervisor: Supervisor, applier: Applier, sockets: SocketGroup, on_released: Callable[[], None]
    ) -> None:
        self._supervisor = supervisor
        self._applier = applier
        self._sockets = sockets
        self._on_released = on_released

    async def offer(self) -> Offer:
        """Offer everything, and change nothing until `keep` or `release`."""
        await self._applier.lock.acquire()
        pairs = [(address, sock) for address, group in self._sockets.sockets.items() for sock in group]
        self._applier.node.events.emit("takeover_begins", sockets=len(pairs))
        return Offer(state_of(self._applier), [address for address, _ in pairs], [sock for _, sock in pairs])

    def keep(self, cause: str) -> None:
        """Go on: nobody took over."""
        self._applier.lock.release()
        self._applier.node.events.emit("takeover_failed", cause=cause)

    async def release(self) -> None:
        """Have the workers stop accepting, and let go of the sockets; who waits in a queue is the successor's."""
        refusal = Refused(503, "handed_over", "another process has taken over; ask again")
        self._supervisor.begin_draining(refusal)
        await self._supervisor.workers.let_all_go(last=False)
        self._on_released()
        self._applier.lock.release()
