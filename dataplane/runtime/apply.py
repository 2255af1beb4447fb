"""A snapshot in, running state out: everything that can fail first, then one step that cannot.

1. Validate, compare generations, compute the changes (in a thread: it is CPU work of milliseconds).
2. Bind what is listened on newly. If one address cannot be had, close the others again and refuse.
3. Build sticky tables and backends, in slices between which the loop relays.
4. Swap: services, backends, listeners. What did not change is not touched; what was removed drains.
5. Write the snapshot to disk, then answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from dataplane.core.spec import CheckType, OperatorState
from dataplane.net.backend import Backend
from dataplane.net.listener import BindError, Listener, open_listener
from dataplane.runtime.convert import service_spec
from dataplane.runtime.difference import changes_between
from dataplane.runtime.impact import Prepared, impact_of
from dataplane.runtime.tables import build_tables
from schemas.snapshot import Snapshot, parse_snapshot

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from dataplane.core.spec import BackendSpec, ServiceSpec
    from dataplane.runtime.node import Node, Running
    from dataplane.runtime.store import SnapshotStore
    from schemas.api import Applied, BackendPatch, Change, Planned

__all__ = ["Applier", "Refused"]

SLICE: Final = 250
"""Backends handled between two turns of the loop: about a millisecond."""
EMPTY: Final = Snapshot(generation=0, services={})


class Refused(Exception):  # noqa: N818 - an answer, not a failure
    """A request that changes nothing, with the HTTP status that says why."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(status, code, message)
        self.status = status
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class Applier:
    """Holds what runs, and changes it; one change at a time."""

    def __init__(self, node: Node, store: SnapshotStore | None, *, reuse_port: bool) -> None:
        self.node = node
        self.snapshot = EMPTY
        self.on_change: Callable[[], None] = lambda: None
        """Called after each change of what runs."""
        self._store = store
        self._reuse_port = reuse_port
        self._lock = asyncio.Lock()

    # -- the snapshot ---------------------------------------------------------------------------------

    async def apply(self, data: object, *, if_match: str | None = None) -> Applied:
        """Run a snapshot.

        Args:
            data: The decoded body.
            if_match: Refuse unless this is the hash of what runs.

        Raises:
            schemas.errors.InvalidDocument: 422.
            Refused: 409, 412 or 503. Nothing has changed.
        """
        async with self._lock:
            snapshot = await asyncio.to_thread(parse_snapshot, data)
            self._check(snapshot, if_match)
            if snapshot.generation == self.snapshot.generation:
                return {"generation": snapshot.generation, "hash": snapshot.hash, "changes": []}
            changes = await self._run(snapshot)
            await self._save(snapshot)
            return {"generation": snapshot.generation, "hash": snapshot.hash, "changes": changes}

    async def restore(self, snapshot: Snapshot) -> None:
        """Run a snapshot that comes from disk, from `--config` or from the environment.

        Raises:
            Refused: 503, an address cannot be had.
        """
        async with self._lock:
            await self._run(snapshot)

    async def plan(self, data: object, *, if_match: str | None = None) -> Planned:
        """Say what `apply` would change and what that would mean, or refuse as it would."""
        async with self._lock:
            snapshot = await asyncio.to_thread(parse_snapshot, data)
            self._check(snapshot, if_match)
            changes = await asyncio.to_thread(changes_between, self.snapshot.services, snapshot.services)
            prepared = await self._prepare(snapshot)
            await self._close_all(await self._bind(prepared, listen=False))
            return {"changes": changes, "impact": await impact_of(self.node, changes, prepared)}

    def _check(self, snapshot: Snapshot, if_match: str | None) -> None:
        now = self.snapshot
        if if_match is not None and if_match.strip('"') != now.hash:
            raise Refused(
                412, "hash_mismatch", f"generation {now.generation} with hash {now.hash} is running"
            )
        if snapshot.generation < now.generation:
            raise Refused(
                409,
                "older_generation",
                f"generation {now.generation} is running, which is newer than {snapshot.generation}",
            )
        if snapshot.generation == now.generation and snapshot.hash != now.hash:
            raise Refused(
                409,
                "generation_conflict",
                f"generation {now.generation} is running with another hash, {now.hash}",
            )

    async def _run(self, snapshot: Snapshot) -> list[Change]:
        changes = await asyncio.to_thread(changes_between, self.snapshot.services, snapshot.services)
        prepared = await self._prepare(snapshot)
        opened = await self._bind(prepared, listen=True)
        self._end_overrides(prepared)
        backends = await self._make_backends(prepared)
        self._swap(prepared, opened, backends)
        old, self.snapshot = self.snapshot, snapshot
        self.node.events.emit(
            "applied",
            generation=snapshot.generation,
            hash=snapshot.hash,
            previous=old.generation,
            changes=len(changes),
        )
        self.on_change()
        return changes

    async def _save(self, snapshot: Snapshot) -> None:
        if self._store is None:
            return
        try:
            await asyncio.to_thread(lambda store: store.save(snapshot.body()), self._store)
        except OSError as error:
            self.node.events.emit(
                "snapshot_not_saved",
                path=str(self._store.path),
                cause=str(error),
                todo="a restart would run the snapshot saved before: free the disk and apply again",
            )

    # -- preparing ------------------------------------------------------------------------------------

    async def _prepare(self, snapshot: Snapshot) -> dict[str, Prepared]:
        specs = await asyncio.to_thread(
            lambda: {name: service_spec(name, service) for name, service in snapshot.services.items()}
        )
        prepared = {}
        for name, spec in specs.items():
            running = self.node.running.get(name)
            configured = {backend.id: backend for backend in spec.backends}
            effective = {
                backend_id: self._effective(name, running, backend)
                for backend_id, backend in configured.items()
            }
            known = (running.tables, running.service.spec.seed) if running else ({}, "")
            tables = await build_tables(spec.mode, spec.seed, effective.values(), *known)
            prepared[name] = Prepared(spec, configured, effective, tables)
        return prepared

    def _effective(self, name: str, running: Running | None, spec: BackendSpec) -> BackendSpec:
        """Apply those overrides that the new configuration leaves in force."""
        override = self.node.overrides.get((name, spec.id))
        old = running.configured.get(spec.id) if running else None
        if not override or old is None:
            return spec
        kept: dict[str, Any] = {
            field: value
            for field, (value, _) in override.items()
            if getattr(old, field) == getattr(spec, field)
        }
        return replace(spec, **kept)

    def _end_overrides(self, prepared: Mapping[str, Prepared]) -> None:
        node = self.node
        for name, backend_id in list(node.overrides):
            running, following = node.running.get(name), prepared.get(name)
            old = running.configured.get(backend_id) if running else None
            new = following.configured.get(backend_id) if following else None
            node.drop_overrides(name, backend_id, old, new)

    async def _bind(self, prepared: Mapping[str, Prepared], *, listen: bool) -> dict[str, socket.socket]:
        """Open what is listened on newly, all of it or none.

        Raises:
            Refused: 503.
        """
        opened: dict[str, socket.socket] = {}
        try:
            for following in prepared.values():
                for address in following.spec.listen:
                    if address not in self.node.listeners:
                        opened[address] = open_listener(address, reuse_port=self._reuse_port, listen=listen)
        except BindError as error:
            await self._close_all(opened)
            raise Refused(503, "bind_failed", str(error)) from error
        return opened

    async def _close_all(self, opened: Mapping[str, socket.socket]) -> None:
        for sock in opened.values():
            sock.close()

    async def _make_backends(self, prepared: Mapping[str, Prepared]) -> dict[tuple[str, str], Backend]:
        made: dict[tuple[str, str], Backend] = {}
        for name, following in prepared.items():
            running = self.node.running.get(name) or self.node.leaving.get(name)
            known = running.service.backends if running else {}
            leaving = {backend.id for backend in running.service.leaving} if running else set()
            for backend_id, spec in following.effective.items():
                if backend_id not in known and backend_id not in leaving:
                    made[name, backend_id] = Backend(self.node.reactor, spec, following.spec)
                    if len(made) % SLICE == 0:
                        await asyncio.sleep(0)
        return made

    # -- the step that cannot fail --------------------------------------------------------------------

    def _swap(
        self,
        prepared: Mapping[str, Prepared],
        opened: Mapping[str, socket.socket],
        made: Mapping[tuple[str, str], Backend],
    ) -> None:
        node = self.node
        wanted = {address: name for name, following in prepared.items() for address in following.spec.listen}
        for address in [address for address in node.listeners if address not in wanted]:
            node.listeners.pop(address).close()
        for name in [name for name in node.running if name not in prepared]:
            self._remove_service(node.running.pop(name))
        for name, following in prepared.items():
            running = node.running.get(name)
            if running is None:
                running = node.running[name] = node.new_service(following.spec)
            self._update(running, following, made)
        for address, name in wanted.items():
            service = node.running[name].service
            listener = node.listeners.get(address)
            if listener is None:
                listener = node.listeners[address] = Listener(node.reactor, address, opened[address], service)
                listener.start()
            else:
                listener.serve(service)
        node.probe_all()

    def _update(self, running: Running, following: Prepared, made: Mapping[tuple[str, str], Backend]) -> None:
        node, service, spec = self.node, running.service, following.spec
        now = node.reactor.clock()
        unchecked = spec.active.type is CheckType.NONE
        same_options = service.spec == spec or replace(service.spec, backends=()) == replace(
            spec, backends=()
        )
        old = dict(service.backends)
        returning = {backend.id: backend for backend in service.leaving}
        backends: dict[str, Backend] = {}
        for backend_id, effective in following.effective.items():
            backend = old.pop(backend_id, None)
            if backend is None:
                backend = returning.get(backend_id) or made[spec.name, backend_id]
                self._welcome(running, backend)
                backend.configure(effective, spec, now)
            elif not same_options or backend.spec != effective:
                self._reconfigure(running, backend, effective, spec)
            backends[backend_id] = backend
        if not same_options:
            service.configure(spec)
        service.spec = spec
        service.backends = backends
        running.configured = following.configured
        running.tables = following.tables
        for backend_id in running.outliers.reconfigure(spec.passive):
            node.events.emit(
                "backend_reinstated", service=spec.name, backend=backend_id, cause="passive checks are off"
            )
        for backend in old.values():
            self._remove_backend(running, backend)
        for backend in backends.values():
            if unchecked or backend.spec.state is OperatorState.DISABLED:
                node.forget_health(running, backend)
            node.refresh(running, backend)
        node.rebuild(running)

    def _welcome(self, running: Running, backend: Backend) -> None:
        """Take in a backend that is new, or that comes back while its connections still drain."""
        service = running.service
        if backend in service.leaving:
            service.leaving.remove(backend)
            backend.removed = False
            self.node.undrain(flow for flow in service.flows if flow.backend is backend)

    def _reconfigure(
        self, running: Running, backend: Backend, effective: BackendSpec, spec: ServiceSpec
    ) -> None:
        node, service, before = self.node, running.service, backend.spec
        backend.configure(effective, spec, node.reactor.now)
        if effective.address != before.address:
            node.drain_backend(service, backend)
            node.forget_health(running, backend)
        node.after_state(running, backend, before)

    def _remove_backend(self, running: Running, backend: Backend) -> None:
        node, service = self.node, running.service
        backend.removed = True
        backend.set_spec(replace(backend.spec, state=OperatorState.DRAIN), node.reactor.now)
        running.outliers.remove(backend.id)
        node.refresh(running, backend)
        if backend.active:
            service.leaving.append(backend)
            node.drain_backend(service, backend)

    def _remove_service(self, running: Running) -> None:
        node, service = self.node, running.service
        service.draining = True
        node.reactor.wheel.cancel(running)
        for backend in list(service.backends.values()):
            self._remove_backend(running, backend)
        service.backends = {}
        running.configured = {}
        node.rebuild(running)
        if service.flows:
            node.leaving[service.name] = running
            node.drain(service.flows, service, service.drain_reason)

    # -- overrides ------------------------------------------------------------------------------------

    async def patch(self, name: str, backend_id: str, patch: BackendPatch) -> dict[str, Any]:
        """Override a backend's state or weight until a snapshot changes that field.

        Raises:
            Refused: 404.
        """
        async with self._lock:
            node = self.node
            running = node.running.get(name)
            if running is None:
                raise Refused(404, "no_such_service", f"there is no service {name}")
            backend = running.service.backends.get(backend_id)
            if backend is None:
                raise Refused(404, "no_such_backend", f"service {name} has no backend {backend_id}")
            now = node.reactor.clock()
            fields: dict[str, Any] = {}
            if patch.state is not None:
                fields["state"] = OperatorState(patch.state)
            if patch.weight is not None:
                fields["weight"] = patch.weight
            effective = replace(backend.spec, **fields)
            spec = running.service.spec
            others = {other.id: other.spec for other in running.service.backends.values()} | {
                backend_id: effective
            }
            tables = await build_tables(spec.mode, spec.seed, others.values(), running.tables, spec.seed)
            configured = running.configured[backend_id]
            override = dict(node.overrides.get((name, backend_id), {}))
            for field, value in fields.items():
                if getattr(configured, field) == value:
                    override.pop(field, None)
                elif override.get(field, (None,))[0] != value:
                    override[field] = (value, now)
            node.overrides[name, backend_id] = override
            if not override:
                del node.overrides[name, backend_id]
            before = backend.spec
            running.tables = tables
            backend.set_spec(effective, now)
            node.after_state(running, backend, before)
            node.refresh(running, backend)
            node.rebuild(running)
            node.probe_all()
            node.events.emit("override", service=name, backend=backend_id, **patch.body())
            return {
                "service": name,
                "id": backend_id,
                "state": effective.state.value,
                "weight": effective.weight,
            }
