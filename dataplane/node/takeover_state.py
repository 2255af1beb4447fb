"""What a process tells its successor, what that one makes of it, and how it hands over (see ipc.takeover)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dataplane.core.health import HealthState
from dataplane.ipc.messages import Verdict
from dataplane.net.backend import Backend
from dataplane.node.apply import Applier
from dataplane.node.node import Node
from dataplane.node.running_service import find
from schemas.api import BackendPatch

__all__ = ["found", "inherit", "state_of", "verdicts_of"]


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
