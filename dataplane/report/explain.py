"""What a client would get: the candidates, and why the others are none."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from dataplane.core.balance.sticky_table import client_key
from dataplane.core.reasons import SkipReason
from dataplane.core.spec import OperatorState
from dataplane.errors import Refused
from dataplane.net.backend import Backend
from dataplane.node.node import Node
from dataplane.node.running_service import RunningService

if TYPE_CHECKING:  # a worker does without
    from schemas.replies import Explanation, Skipped


def explain(node: Node, service: str, client: str) -> Explanation:
    """Say which backends a new connection from `client` would try, in order, and why not the others.

    Raises:
        Refused: 404, there is no such service; 422, `client` is no IP address.
    """
    running = node.running.get(service)
    if running is None:
        raise Refused(404, "no_such_service", f"there is no service {service}")
    try:
        address = str(ipaddress.ip_address(client))
    except ValueError as error:
        raise Refused(422, "invalid", f"client: {error}") from error
    node.rebuild_stale()
    spec, selection, backends = running.service.spec, running.service.selection, running.service.backends
    limit = spec.limits.per_backend
    candidates = list(selection.order(client_key(address.encode(), spec.seed)))
    full = [backend for backend in candidates if limit and backend.active >= limit]
    skipped: list[Skipped] = [
        {"id": backend.id, "reason": SkipReason.LIMIT_PER_BACKEND.value} for backend in full
    ]
    skipped.extend(
        {"id": backend.id, "reason": _skip_reason(running, backend).value}
        for backend in backends.values()
        if backend not in candidates
    )
    return {
        "service": service,
        "client": address,
        "panic": selection.panic,
        "candidates": [
            {"id": backend.id, "address": backend.spec.address}
            for backend in candidates
            if backend not in full
        ],
        "skipped": skipped,
    }


def _skip_reason(running: RunningService, backend: Backend) -> SkipReason:
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
