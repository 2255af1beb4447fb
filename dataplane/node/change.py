"""How a node changes: prepare everything that may take time or fail, then one step that does neither."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

from dataplane.core.balance.sticky_table import StickyTable
from dataplane.core.reasons import CloseReason
from dataplane.core.spec import BackendSpec, CheckType, ListenSpec, Mode, OperatorState, ServiceSpec
from dataplane.net.backend import Backend
from dataplane.net.service import Service
from dataplane.node.backend_addresses import find_loops
from dataplane.node.drain import drain, rehome, undrain
from dataplane.node.listeners import Listeners
from dataplane.node.node import Node
from dataplane.node.running_service import RunningService, take_share
from dataplane.node.slices import pieces, sliced
from dataplane.node.sticky_tables import build_tables
from dataplane.node.tls import ServiceTls, load_tls, run_tls
from dataplane.telemetry.events import Events
from schemas.system.machine import HERE

V = TypeVar("V")
MADE: Final = 100
"""Backends that are made between two turns of the loop: a millisecond."""
IN_PLACE: Final = 16
"""So many weights are taken in place one by one: each may have to be searched for, in up to 0.2 ms."""


@dataclass(slots=True)
class Prepared:
    """One service of a snapshot, ready to be run."""

    spec: ServiceSpec
    configured: dict[str, BackendSpec]
    """Backends as the snapshot has them, by id."""
    effective: dict[str, BackendSpec]
    """The same with the overrides applied that stay in force."""
    tables: dict[int, StickyTable]
    loops: Mapping[str, Mapping[str, str]]
    """Backends that lead back into the balancer (`node.backend_addresses.find_loops`)."""
    tls: ServiceTls
    """With its clients, and with its backends."""


class Computed(NamedTuple):
    """What costs to find out about a service."""

    tables: Mapping[int, StickyTable]
    """By tier; those that are missing are built, if none that runs will do."""
    loops: Mapping[str, Mapping[str, str]] | None
    """As in `Prepared`; None: nobody knows."""


@dataclass(slots=True)
class Draft:
    """A whole change, prepared: the services to be, and the backends that are new by (service, id)."""

    services: dict[str, Prepared]
    made: dict[tuple[str, str], Backend]

    def addresses(self) -> dict[str, list[str]]:
        """Return the names of the services of each address that is listened on, sorted: `node.routers.Addresses`."""
        found: dict[str, list[str]] = {}
        for name in sorted(self.services):
            for address in self.services[name].spec.listen:
                found.setdefault(address, []).append(name)
        return found

    def listen_options(self) -> dict[str, ListenSpec]:
        """Return how those addresses are listened on that say so."""
        return dict(option for service in self.services.values() for option in service.spec.listen_options)


@dataclass(frozen=True, slots=True)
class Words:
    """What an operator wants of backends of one service, prepared."""

    running: RunningService
    specs: tuple[BackendSpec, ...]
    tables: dict[int, StickyTable]


class Changer:
    """Changes the services, backends and balancers of a node."""

    def __init__(self, node: Node) -> None:
        self.node = node

    # -- what may take time ---------------------------------------------------------------------------

    async def prepare(
        self, specs: Sequence[ServiceSpec], computed: Mapping[str, Computed] = MappingProxyType({})
    ) -> Draft:
        """Build sticky tables, in slices between which the loop relays; nothing runs yet, and backends are still to be made.

        What another process has `computed` for all of the services, by name, is not computed again.
        """
        prepared = {}
        tls = await load_tls(specs, self.node.running)
        loops = {name: one.loops for name, one in computed.items() if one.loops is not None}
        if len(loops) < len(specs):
            served = ((spec.name, spec.listen, spec.backends) for spec in specs)
            loops = dict(await find_loops(served, {}, HERE))
        overridden: dict[str, list[str]] = {}
        for name, backend_id in self.node.overrides:
            overridden.setdefault(name, []).append(backend_id)
        for spec in specs:
            name = spec.name
            running = self.node.running.get(name)
            configured = {backend.id: backend for backend in spec.backends}
            effective = dict(configured)
            for backend_id in overridden.get(name, ()):
                if backend_id in configured:
                    effective[backend_id] = self._effective(name, running, configured[backend_id])
            known = running.tables if running and running.service.spec.seed == spec.seed else {}
            if name in computed:
                known = {**known, **computed[name].tables}
            tables = await build_tables(spec.mode, spec.seed, effective.values(), known, spec.seed)
            prepared[name] = Prepared(
                spec, configured, effective, tables, loops.get(name, {}), tls.get(name, ServiceTls())
            )
        return Draft(prepared, {})

    def _effective(self, name: str, running: RunningService | None, spec: BackendSpec) -> BackendSpec:
        """Apply those overrides that the new configuration leaves in force."""
        override = self.node.overrides.get((name, spec.id))
        old = running.configured.get(spec.id) if running else None
        if not override or old is None:
            return spec
        fields: dict[str, Any] = {field: value for field, (value, _) in _kept(override, old, spec).items()}
        return spec._replace(**fields)

    async def make(self, draft: Draft) -> None:
        """Make the backends that are new, in slices as well; `swap` would make them in one piece."""
        for name, following in draft.services.items():
            running = self.node.running.get(name) or self.node.leaving.get(name)
            known = running.service.backends if running else {}
            leaving = {backend.id for backend in running.service.leaving} if running else set()
            new = [id_ for id_ in following.effective if id_ not in known and id_ not in leaving]
            async for id_ in sliced(new, MADE):
                draft.made[name, id_] = self.node.make_backend(following.effective[id_], following.spec)

    # -- the step that cannot fail --------------------------------------------------------------------

    async def swap(self, draft: Draft, listeners: Listeners) -> None:
        """Run what was prepared. What did not change is not touched; what is gone drains.

        In slices, too: until a service's new selection is there, its clients are served from the old one.
        """
        node, prepared, addresses = self.node, draft.services, draft.addresses()
        self._end_overrides(prepared)
        listeners.shut(addresses)
        for name, following in prepared.items():
            running = node.running.get(name)
            if running is None:
                running = node.running[name] = node.new_service(following.spec)
            await self._update(running, following, draft.made)
        listeners.open(addresses)
        # Only now: until a listener has its new service, its clients need the old one.
        for name in [name for name in node.running if name not in prepared]:
            await self._remove_service(node.running.pop(name))
        node.probe_all()

    def _end_overrides(self, prepared: Mapping[str, Prepared]) -> None:
        """End the overrides of fields that a snapshot changes; those that it repeats stay."""
        node = self.node
        for name, backend_id in list(node.overrides):
            running, following = node.running.get(name), prepared.get(name)
            old = running.configured.get(backend_id) if running else None
            new = following.configured.get(backend_id) if following else None
            override = node.overrides.pop((name, backend_id))
            if old is not None and new is not None and (kept := _kept(override, old, new)):
                node.overrides[name, backend_id] = kept

    async def _update(
        self, running: RunningService, following: Prepared, made: Mapping[tuple[str, str], Backend]
    ) -> None:
        node, service, spec = self.node, running.service, following.spec
        node.reactor.clock()
        same_options = replace(service.spec, backends=()) == replace(spec, backends=())
        old, backends = service.backends, self._match(service, following, made)
        same = backends is old
        others = list(following.effective.values())
        if same and same_options:
            before = running.effective.values()
            others = [now for now, then in zip(others, before, strict=True) if now is not then]
        touched: list[tuple[Backend, BackendSpec]] = []
        async for some in pieces(others):
            touched += [
                (backend, effective)
                for effective in some
                if ((backend := backends[effective.id]).id in old or backend.removed)
                and (not same_options or backend.removed or backend.spec != effective)
            ]
        # From here on clients see the new backends, chosen among by the old selection.
        if not same_options:
            service.configure(spec)
        service.spec = spec
        run_tls(service, following.tls, node.events)
        service.backends = backends
        service.spread_tls()
        running.configured = following.configured
        running.effective = following.effective
        running.tables = following.tables
        fresh = [] if same else [one for one in backends.values() if one.id not in old and not one.removed]
        node.backend_addresses.hand_down(running, old.values(), fresh)
        for backend_id in running.outliers.reconfigure(spec.passive):
            where = {"service": spec.name, "backend": backend_id}
            node.events.emit("backend_reinstated", **where, cause="passive checks are off")
        # The selection of 10,000 backends takes 14 ms in one piece: it stays if only a few weights are others, or nothing.
        stays = (
            same_options and running.serving >= 0 and (same or backends == old) and len(touched) <= IN_PLACE
        )
        moves = False
        async for backend, effective in sliced(touched):
            stood = backend.standing
            moves |= self._reconfigure(running, backend, effective, anew=not same_options)
            stays = stays and service.selection.reweigh(stood, backend.standing)
        node.backend_addresses.turn_away(running, following.loops)
        await asyncio.sleep(0)
        if not stays:
            running.rebuild()
            await asyncio.sleep(0)
        # Connections stay with their address, whatever the backends are called now.
        gone = [] if same else [backend for backend in old.values() if backend.id not in backends]
        moves |= await self._remove(running, gone)
        await _settle(service, node.events, moves=moves)

    def _match(
        self, service: Service, following: Prepared, made: Mapping[tuple[str, str], Backend]
    ) -> dict[str, Backend]:
        """Return the backends that a service is to have, in order: those that stay, that come back, and that are new."""
        if list(service.backends) == list(following.effective):
            return service.backends
        if service.backends.keys() == following.effective.keys():
            return {backend_id: service.backends[backend_id] for backend_id in following.effective}
        returning = {backend.id: backend for backend in service.leaving}
        # One that was leaving when the change was prepared may have gone meanwhile: then it is new, too.
        return {
            backend_id: service.backends.get(backend_id)
            or returning.get(backend_id)
            or made.get((service.name, backend_id))
            or self.node.make_backend(effective, following.spec)
            for backend_id, effective in following.effective.items()
        }

    def _reconfigure(
        self, running: RunningService, backend: Backend, effective: BackendSpec, *, anew: bool
    ) -> bool:
        """Give a backend that stays what is new; tell whether it leaves connections behind at another address.

        `anew` says whether the service has other options, too.
        """
        if not anew and take_share(running, backend, effective):
            return False
        node, service, before = self.node, running.service, backend.spec
        spec = service.spec
        moves = effective.address != before.address
        left = moves and backend.own > 0
        if backend.removed:
            if backend in service.leaving:  # unless its last connection ended just now
                service.leaving.remove(backend)
            backend.removed = False
            anew = True
        if anew or moves:
            backend.configure(effective, spec, node.reactor.now)
        else:
            backend.set_spec(effective, node.reactor.now)
        if moves or spec.active.type is CheckType.NONE or effective.state is OperatorState.DISABLED:
            self._forget_health(running, backend)
        self._after_state(running, backend, before)
        running.refresh(backend)
        return left

    def _after_state(self, running: RunningService, backend: Backend, before: BackendSpec) -> None:
        """Drain, or stop draining, the connections of a backend whose operator state may have changed."""
        state, service, node = backend.spec.state, running.service, self.node
        if state is before.state:
            return
        held = [flow for flow in service.flows if flow.backend is backend]
        if state is OperatorState.ENABLED:
            undrain(flow for flow in held if flow.place == backend.spec.address)
        elif before.state is OperatorState.ENABLED:
            count = drain(service, held, CloseReason.DRAIN_TIMEOUT)
            node.events.emit(
                "drain",
                service=service.name,
                backend=backend.id,
                state=state.value,
                connections=count + node.clients_elsewhere(service.name, backend.id),
                timeout_s=service.spec.drain.timeout_s,
            )
        if state is OperatorState.DISABLED:
            self._forget_health(running, backend)

    def _forget_health(self, running: RunningService, backend: Backend) -> None:
        """Take note that nobody checks a backend any more."""
        change = backend.health.forget(self.node.reactor.now)
        if change is not None:
            running.tell_health(backend, change)

    async def _remove(self, running: RunningService, backends: Iterable[Backend]) -> bool:
        """Let backends go that the selection does not know any more; tell whether any of them has connections."""
        node, service, left = self.node, running.service, False
        async for backend in sliced(backends):
            backend.removed = True
            backend.set_spec(backend.spec._replace(state=OperatorState.DRAIN), node.reactor.now)
            running.outliers.remove(backend.id)
            running.refresh(backend)
            if backend.own:
                service.leaving.append(backend)
                left = True
        return left

    async def _remove_service(self, running: RunningService) -> None:
        node, service = self.node, running.service
        service.draining = True
        node.reactor.wheel.cancel(running)
        backends = list(service.backends.values())
        service.backends, running.configured, running.effective = {}, {}, {}
        running.rebuild()
        await self._remove(running, backends)
        service.former_addresses |= {backend.spec.address for backend in service.leaving}
        if service.flows:
            node.leaving[service.name] = running
            drain(service, service.flows, service.drain_reason)

    # -- operators' words -----------------------------------------------------------------------------

    async def prepare_words(
        self,
        running: RunningService,
        specs: Sequence[BackendSpec],
        known: Mapping[int, StickyTable] = MappingProxyType({}),
    ) -> Words:
        """Build what backends with other operator states or weights need, in slices; nothing runs yet.

        Tables that are `known`, by tier, are not built again.
        """
        service, tables = running.service, running.tables
        reweighed = any(service.backends[spec.id].spec.weight != spec.weight for spec in specs)
        if service.spec.mode is Mode.STICKY and reweighed:
            others = {backend.id: backend.spec for backend in service.backends.values()}
            others |= {spec.id: spec for spec in specs}
            seed = service.spec.seed
            tables = await build_tables(Mode.STICKY, seed, others.values(), {**tables, **known}, seed)
        return Words(running, tuple(specs), tables)

    async def obey(self, words: Words) -> None:
        """Give backends other operator states or weights, which cannot fail.

        In slices: until all have them, clients are served from the selection that there is.
        """
        node, running = self.node, words.running
        service = running.service
        running.tables = words.tables
        running.effective |= {spec.id: spec for spec in words.specs}
        stays, turned = len(words.specs) <= IN_PLACE, False
        async for effective in sliced(words.specs):
            backend = service.backends[effective.id]
            before, stood = backend.spec, backend.standing
            if not take_share(running, backend, effective):
                backend.set_spec(effective, node.reactor.clock())
                self._after_state(running, backend, before)
                running.refresh(backend)
            stays = stays and service.selection.reweigh(stood, backend.standing)
            if effective.state is not before.state:
                turned = True
                await asyncio.sleep(0)  # all flows have been looked at
        if not stays:
            running.rebuild()
        if turned:
            node.probe_all()


def _kept(override: Mapping[str, V], old: BackendSpec, new: BackendSpec) -> dict[str, V]:
    """Return those overridden fields that a new configuration leaves as they were."""
    return {name: value for name, value in override.items() if getattr(old, name) == getattr(new, name)}


async def _settle(service: Service, events: Events, *, moves: bool) -> None:
    """Say whose connections are whose now, if that may have changed, and dial what pools hold even without traffic."""
    former = service.former_addresses
    backends = service.backends.values()
    if moves or (former and not former.isdisjoint(backend.spec.address for backend in backends)):
        await rehome(service, events)
    async for backend in sliced(list(backends) if service.spec.pool.min_idle else ()):
        backend.pool.refiller.restock()
