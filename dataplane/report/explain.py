"""What a client would get: the candidates, and why the others are none."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from dataplane.core.balance.sticky_table import client_key
from dataplane.core.client_hello import ClientHello
from dataplane.core.reasons import SkipReason
from dataplane.core.routing import Routes
from dataplane.core.spec import OperatorState, ServiceSpec
from dataplane.errors import Refused
from dataplane.net.backend import Backend
from dataplane.node.node import Node
from dataplane.node.running_service import RunningService

if TYPE_CHECKING:  # a worker does without
    from schemas.replies import Explanation, Routed, Skipped


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


def routed(node: Node, service: str, client: str, hello: ClientHello) -> list[Routed]:
    """Say who takes a client that sends this, at each address where that matters: of a service, or of all if it is empty.

    Raises:
        Refused: 404, there is no such service, or no such address, or nobody takes it; 422, `client` is no IP address.
    """
    try:
        source = str(ipaddress.ip_address(client))
    except ValueError as error:
        raise Refused(422, "invalid", f"client: {error}") from error
    if service and service not in node.running:
        raise Refused(404, "no_such_service", f"there is no service {service}")
    found: list[Routed] = []
    for address, specs in _sharing(node).items():
        if service in {"", *(spec.name for spec in specs)}:
            target = Routes((spec.match, spec.name) for spec in specs).find(hello, source)
            found.append({"address": address, "service": target})
    if not found:
        raise Refused(
            404, "no_such_service", f"nothing is routed by name{f' to {service}' if service else ''}"
        )
    if all(one["service"] is None for one in found):
        where = ", ".join(one["address"] for one in found)
        raise Refused(404, "no_such_service", f"no service takes this client on {where}")
    return found


def _sharing(node: Node) -> dict[str, list[ServiceSpec]]:
    """Return the services of each address that several share, or one that does not take everybody."""
    by_address: dict[str, list[ServiceSpec]] = {}
    for name in sorted(node.running):
        spec = node.running[name].service.spec
        for address in spec.listen:
            by_address.setdefault(address, []).append(spec)
    return {
        address: specs
        for address, specs in by_address.items()
        if len(specs) > 1 or specs[0].match is not None
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
