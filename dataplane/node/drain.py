"""Whose connections are whose after a change, and the deadlines of those that drain, which are given here, and taken back.

Theory of operation
-------------------
1. A connection leads to an address. A backend's id may go while its server lives on under another one: renamed in
   lb.yaml, or registered twice in Consul. Or two backends exchange their addresses. Nobody is cut for a name.
2. So after a change each connection whose backend has not its address (`Flow.place`) any more is counted at the
   backend that has it; of several, at one that is enabled if there is one. There that backend's rules hold: one that
   is enabled ends a drain, one that is drained or disabled begins one.
3. Who is left is at an address that nobody has. It drains, and its address is remembered (`Service.former_addresses`): a later
   change may bring it back within the drain timeout.
4. When the whole node is drained (`drain_all`), every connection in place gets its deadline, whatever its backend. Taken back,
   each is again as its backend has it: an operator's word for one backend is neither used nor touched. It concerns whom it
   finds: clients that come later are given theirs when it is said again.
5. Idle pooled connections carry nobody, and are closed with their backend as ever.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from dataplane.core.reasons import CloseReason
from dataplane.core.spec import BackendSpec, OperatorState
from dataplane.net.backend import Backend
from dataplane.net.flow import Flow
from dataplane.net.service import Service
from dataplane.node.slices import sliced
from dataplane.telemetry.events import Events

SLICE: Final = 500
"""Connections looked at between two turns of the loop: less than a millisecond, if all of them move."""


def drain(service: Service, flows: Iterable[Flow], reason: CloseReason) -> int:
    """Give flows of a service their last deadline; return how many there are that had none."""
    service.drain_reason = reason
    chosen = [flow for flow in flows if not flow.deadline or reason is CloseReason.SHUTDOWN]
    spec, now = service.spec.drain, service.reactor.now
    times = closing_times(len(chosen), now, timeout_s=spec.timeout_s, close_s=spec.close_s)
    for flow, when in zip(chosen, times, strict=True):
        flow.deadline = when
        flow.service.drain_reason = reason  # that of a client who has not been routed yet is the router
        service.deadlines.schedule(flow)
    return len(chosen)


def undrain(flows: Iterable[Flow]) -> None:
    """Take last deadlines back."""
    for flow in flows:
        if flow.deadline:
            flow.deadline = 0.0
            flow.service.deadlines.schedule(flow)


async def drain_all(services: Iterable[Service], events: Events, *, draining: bool) -> None:
    """Give every connection of services that run its last deadline, or take that back."""
    for service in services:
        if not draining:
            # Whoever is still on the way to a backend; of the others each is again as its backend has it.
            undrain(flow for flow in service.flows if flow.backend is None)
            await rehome(service, events)
        elif drain(service, list(service.flows), CloseReason.DRAIN_TIMEOUT):
            await asyncio.sleep(0)


def closing_times(count: int, now: float, *, timeout_s: float, close_s: float) -> Iterator[float]:
    """Yield `count` deadlines (monotonic seconds): evenly over `close_s`, beginning when `timeout_s` is over.

    Spread, because clients that are all cut at once all come back at once.
    """
    start = now + timeout_s
    step = close_s / max(1, count - 1)
    for index in range(count):
        yield start + index * step


def home_of(specs: Iterable[BackendSpec]) -> dict[str, BackendSpec]:
    """Return by address who has the connections that lead there: the first that is enabled, else the first."""
    homes: dict[str, BackendSpec] = {}
    for spec in specs:
        known = homes.get(spec.address)
        if known is None or (
            spec.state is OperatorState.ENABLED and known.state is not OperatorState.ENABLED
        ):
            homes[spec.address] = spec
    return homes


async def rehome(service: Service, events: Events) -> None:
    """Give each connection of a service to the backend that has its address, and drain those that nobody has.

    In slices: connections may come and go meanwhile, but only at backends that stay.
    """
    backends = service.backends
    homes = {
        address: backends[spec.id]
        for address, spec in home_of(backend.spec for backend in backends.values()).items()
    }
    drained: list[Flow] = []
    former_addresses: set[str] = set()
    gained: Counter[Backend] = Counter()
    async for flow in sliced(list(service.flows), SLICE):
        backend = flow.backend
        if backend is not None:
            moved = backend.removed or backend.spec.address != flow.place
            home = homes.get(flow.place) if moved else backend
            if home is None:
                former_addresses.add(flow.place)
            elif home is not backend:
                service.connector.move(flow, home)
                gained[home] += 1
            if home is None or home.spec.state is not OperatorState.ENABLED:
                drained.append(flow)
            elif not service.draining:
                undrain((flow,))
    service.former_addresses = frozenset(former_addresses)
    drain(service, (flow for flow in drained if not flow.over), CloseReason.DRAIN_TIMEOUT)
    for one in gained:
        _make_room(one, service.spec.limits.per_backend)
    if gained:
        events.emit("connections_moved", service=service.name, connections=gained.total())
        service.serve_queue()


def _make_room(backend: Backend, limit: int) -> None:
    """Give up pooled connections that, with those that have come, are more than `limits.per_backend`."""
    while limit and backend.active + backend.pool.held > limit and backend.pool.displace():
        pass
