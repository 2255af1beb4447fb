"""What a process tells its successor, what that one makes of it, and how it hands over (see ipc.takeover)."""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dataplane.core.health import HealthState
from dataplane.errors import Refused
from dataplane.ipc.messages import Verdict
from dataplane.ipc.takeover import Offer
from dataplane.net.backend import Backend
from dataplane.node.apply import Applier
from dataplane.node.node import Node
from dataplane.node.running_service import find
from schemas.api import BackendPatch

__all__ = ["Handover", "found", "inherit", "state_of", "verdicts_of"]


def found(service: str, backend: Backend, *, passed: bool) -> Verdict:
    """Return what active checks have found of a backend."""
    health = backend.health
    return service, backend.id, health.state.value, health.cause, health.reachable, passed


def verdicts_of(node: Node) -> list[Verdict]:
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
        "saved": applier.saving.saved,
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


class Handover:
    """Hands over what a data plane listens on (dataplane.ipc.takeover.Holder); nothing is changed meanwhile.

    `let_go` has nobody accept here any more, as another process does, and refuses every change as it is told to.
    """

    def __init__(
        self,
        applier: Applier,
        sockets: Callable[[], list[tuple[str, socket.socket]]],
        let_go: Callable[[Refused], Awaitable[None]],
    ) -> None:
        self._applier = applier
        self._sockets = sockets
        self._let_go = let_go

    async def offer(self) -> Offer:
        """Offer everything, and change nothing until `keep` or `release`."""
        await self._applier.lock.acquire()
        pairs = self._sockets()
        self._applier.node.events.emit("takeover_begins", sockets=len(pairs))
        return Offer(state_of(self._applier), [address for address, _ in pairs], [sock for _, sock in pairs])

    def keep(self, cause: str) -> None:
        """Go on: nobody took over."""
        self._applier.lock.release()
        self._applier.node.events.emit("takeover_failed", cause=cause)

    async def release(self) -> None:
        """Stop accepting; who waits in a queue is the successor's."""
        await self._let_go(Refused(503, "handed_over", "another process has taken over; ask again"))
        self._applier.lock.release()
