"""Where each backend is: one word for the pool, clients and checks, and for all workers.

A backend's `address` comes from its text, or is put here: by the resolver, if it is a host name; or taken away, if it
leads back into the balancer (schemas.loops). With workers the supervisor's word goes to all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from dataplane.core.health import HealthState
from dataplane.core.reasons import SkipReason
from dataplane.core.spec import BackendSpec
from dataplane.net.backend import ABSENT, Absence, Backend
from dataplane.net.probes import Target
from dataplane.net.reactor import Reactor
from dataplane.net.sockopts import SocketAddress, to_sockaddr
from dataplane.node.running_service import RunningService, find
from dataplane.node.slices import pieces
from dataplane.telemetry.events import Events
from schemas.loops import Loops, Machine

Place = tuple[str, str, str, tuple["SocketAddress", ...], Absence | None]
"""Service, backend id, the address as configured, where that is, and why nowhere."""
Served = tuple[str, "Iterable[str]", "Iterable[BackendSpec]"]
"""The name of a service, its listeners and its backends."""


class BackendAddresses:
    """Puts the backends of a node's services where they are; those are in `running` as they come and go."""

    def __init__(self, running: Mapping[str, RunningService], reactor: Reactor, events: Events) -> None:
        self._running = running
        self._reactor = reactor
        self._events = events
        self._put = asyncio.Event()
        self.on_put: Callable[[list[Place]], None] = lambda _: None
        """Told what has been put; the first of several addresses is the one to use."""

    def put(
        self,
        running: RunningService,
        backend: Backend,
        addresses: Sequence[SocketAddress],
        absence: Absence | None,
    ) -> None:
        """Give a backend its addresses (see `Backend.locate`)."""
        backend.locate(addresses, absence)
        running.reassess(backend)
        put, self._put = self._put, asyncio.Event()
        put.set()
        self._tell(running, backend)

    def hand_down(self, running: RunningService, known: Iterable[Backend], fresh: Iterable[Backend]) -> None:
        """Put new backends where others with the same host name are: until it is looked up again, clients need them."""
        nowhere = [backend for backend in fresh if backend.named and backend.address is None]
        if not nowhere:
            return
        places = {
            backend.spec.address: (backend.address, *backend.others)
            for backend in known
            if backend.named and backend.address is not None
        }
        for backend in nowhere:
            addresses = places.get(backend.spec.address)
            if addresses is not None:
                backend.locate(addresses, None)
                running.refresh(backend)

    def turn_away(self, running: RunningService, loops: Mapping[str, Mapping[str, str]]) -> None:
        """Call none of those backends that lead back (`find_loops`), and call those again that no longer do."""
        before, running.loops = running.loops, frozenset(loops)
        for backend_id in before | running.loops:
            backend = running.service.backends.get(backend_id)
            if backend is None or backend.named:  # names are the resolver's
                continue
            why = next(iter(loops.get(backend_id, {}).values()), "")
            if why:
                self.refuse(running, backend, why)
            elif backend.absence is not None:
                address = to_sockaddr(backend.spec.address)
                self.put(running, backend, () if address is None else (address,), None)

    def refuse(self, running: RunningService, backend: Backend, why: str) -> None:
        """Call a backend no more, since it leads back."""
        if backend.absence is not None and backend.absence.cause == why:
            return
        self.put(running, backend, (), Absence(HealthState.DOWN, SkipReason.LOOP, why, self._reactor.now))
        self._events.emit("backend_loop", service=running.service.name, backend=backend.id, cause=why)

    async def of(self, target: Target) -> Sequence[SocketAddress]:
        """Return where a checked backend is, waiting while that is not known yet; nothing if nobody may call it."""
        while True:
            backend = self._backend(target.service, target.backend_id, target.address)
            if backend is None:
                return ()
            if backend.address is not None:
                return (backend.address, *backend.others)
            if backend.absence is not ABSENT:
                return ()
            await self._put.wait()

    def reached(self, target: Target, address: SocketAddress) -> None:
        """Use an address that a check has found to accept where others before it do not."""
        backend = self._backend(target.service, target.backend_id, target.address)
        if backend is not None:
            backend.prefer(address)
            self._tell(self._running[target.service], backend)

    def all(self) -> list[Place]:
        """Return what a worker cannot know by itself."""
        return [
            _place(running, backend)
            for running in self._running.values()
            for backend in running.service.backends.values()
            if backend.named or backend.absence is not None
        ]

    def take(self, places: Iterable[Place]) -> None:
        """Take the supervisor's word."""
        for service, backend_id, name, addresses, absence in places:
            backend = self._backend(service, backend_id, name)
            if backend is None:
                continue
            self.put(self._running[service], backend, addresses, absence)
            if addresses:
                backend.prefer(addresses[0])

    def _backend(self, service: str, backend_id: str, name: str) -> Backend | None:
        found = find(self._running, service, backend_id)
        return found[1] if found is not None and found[1].spec.address == name else None

    def _tell(self, running: RunningService, backend: Backend) -> None:
        self.on_put([_place(running, backend)])


def _place(running: RunningService, backend: Backend) -> Place:
    addresses = () if backend.address is None else (backend.address, *backend.others)
    return running.service.name, backend.id, backend.spec.address, addresses, backend.absence


async def find_loops(
    services: Iterable[Served], found: Mapping[str, Sequence[str]], machine: Machine
) -> dict[str, dict[str, dict[str, str]]]:
    """Judge all backends, letting the loop have its turn in between.

    What is configured as an address comes before what a name resolves to: the name is refused if both close a circle.

    Args:
        services: All that listen.
        found: By configured address: what the names among them resolve to, as addresses.
        machine: Where this runs.

    Returns:
        By service and backend id: the addresses that lead back, and why.
    """
    served = [(name, tuple(listen), tuple(backends)) for name, listen, backends in services]
    loops = Loops({name: listen for name, listen, _ in served}, machine)
    refused: dict[str, dict[str, dict[str, str]]] = {}
    for named in (False, True) if found else (False,):
        for name, _, backends in served:
            async for some in pieces(backends):
                if not found and not loops.may_land([backend.address for backend in some]):
                    continue
                for backend in some:
                    if (backend.address in found) is named:
                        for address in found.get(backend.address, (backend.address,)):
                            if why := loops.add(name, address):
                                refused.setdefault(name, {}).setdefault(backend.id, {})[address] = why
    return refused
