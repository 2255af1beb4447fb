"""A snapshot in, running state out: everything that can fail first, then one step that cannot.

1. Validate, compare generations, compute the changes, in slices between which the loop relays.
2. Build sticky tables, likewise.
3. Bind what is listened on newly. If one address cannot be had, close the others again and refuse.
4. Make new backends, and have whoever else runs it (a supervisor's workers, `Replicas`) prepare it; one refusal ends it here.
5. Swap: services, backends, listeners. What did not change is not touched; what was removed drains.
6. Have the others swap, and write the snapshot to disk meanwhile; then answer. If it cannot be written, try again later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, cast

from dataplane.background import together
from dataplane.core.health import HealthState
from dataplane.core.spec import BackendSpec
from dataplane.errors import Refused
from dataplane.node.change import Changer, Draft, Words
from dataplane.node.drain import drain_all
from dataplane.node.impact import Held, change_steps, impact_of, own_connections
from dataplane.node.listeners import Listeners, NewSockets
from dataplane.node.node import Node
from dataplane.node.overrides import (
    Override,
    effective_specs,
    note_overrides,
    tell_override,
    tell_overruled,
)
from dataplane.node.running_service import find
from dataplane.node.slices import in_slices, lasting, pieces
from dataplane.node.snapshot_file import SnapshotStore
from dataplane.node.specs import backend_specs, known_specs, service_spec
from schemas.api import BackendPatch, PushedBy, Verdict, parse_backends_patch_steps
from schemas.replies import Applied, Change, Planned, PushOrigin
from schemas.snapshot import Snapshot, Written, parse_snapshot_steps

EMPTY: Final = Snapshot(generation=0, services={})


class OpenedListeners(Listeners, Protocol):
    """Listeners whose sockets are opened before the swap."""

    new: NewSockets


class Replicas(Protocol):
    """Other processes that run what this one does: a change is made in all of them or in none."""

    lock: asyncio.Lock
    """Held by whoever changes what runs."""

    async def prepare(self, snapshot: Snapshot, draft: Draft) -> None:
        """Have each of them prepare a change; raise `Refused` if one cannot."""

    def abort(self) -> None:
        """Have them forget what they have prepared: the change is not made."""

    async def commit(self) -> None:
        """Have them run what they have prepared, which cannot fail."""

    async def dry_run(self) -> Held:
        """Return what tells how many connections they hold, for what a change would do to them."""

    async def prepare_words(self, words: Words) -> None:
        """Have each of them prepare overrides; raise `Refused` if one cannot."""

    async def commit_words(self) -> None:
        """Have them do what they have prepared, which cannot fail."""

    async def drain_all(self, *, draining: bool) -> None:
        """Have them give every connection its last deadline, or take that back; raise `Refused` if one cannot."""


class Applier:
    """Holds what runs, and changes it; one change at a time."""

    def __init__(
        self, node: Node, store: SnapshotStore, listeners: OpenedListeners, replicas: Replicas | None = None
    ) -> None:
        self.node = node
        self.changer = Changer(node)
        self.store = store
        self._listeners = listeners
        self._replicas = replicas
        self.snapshot = EMPTY
        self._written = Written()
        self.pushed_by: PushOrigin | None = None
        """Who pushed it; None: nobody, or nobody knows."""
        self.on_change: Callable[[], None] = lambda: None
        """Called after each change of what runs."""
        self.lock = asyncio.Lock() if replicas is None else replicas.lock
        self.refusal: Refused | None = None
        """Why nothing is changed any more; None as long as this process is in charge."""

    # -- the snapshot ---------------------------------------------------------------------------------

    async def apply(
        self, data: object, *, if_match: str | None = None, by: PushedBy | None = None
    ) -> Applied:
        """Run a snapshot, the decoded body; who pushes it is `by`, if that is known.

        With `if_match` it is refused unless that is the hash of what runs.

        Raises:
            schemas.errors.InvalidDocument: 422.
            Refused: 409, 412 or 503. Nothing has changed.
        """
        async with self.lock:
            with lasting():
                snapshot = await in_slices(parse_snapshot_steps(data, self.snapshot.services, self._written))
                self._check(snapshot, if_match)
                changes: list[Change] = []
                if snapshot.generation == self.snapshot.generation:
                    await self.store.again()
                else:
                    changes = await self._run(snapshot, by, save=True)
                    self._written.keep(snapshot.services)
                return {"generation": snapshot.generation, "hash": snapshot.hash, "changes": changes}

    async def restore(self, snapshot: Snapshot) -> None:
        """Run a snapshot from disk, `--config` or the environment; `Refused` (503) if an address cannot be had."""
        async with self.lock:
            with lasting():
                await self._run(snapshot)

    async def keep_saved(self) -> None:
        """Save again what could not be saved, until cancelled, or until another process is in charge."""
        while self.refusal is None:
            await self.store.due()
            async with self.lock:
                if self.refusal is None:
                    await self.store.again()

    async def plan(self, data: object, *, if_match: str | None = None) -> Planned:
        """Say what `apply` would change and what that would mean, or refuse as it would."""
        async with self.lock:
            snapshot = await in_slices(parse_snapshot_steps(data, self.snapshot.services, self._written))
            self._check(snapshot, if_match)
            changes = await in_slices(change_steps(self.snapshot.services, snapshot.services))
            draft = await self._prepare(snapshot)
            self._listeners.new.rehearse(draft.addresses(), draft.listen_options())
            held = own_connections if self._replicas is None else await self._replicas.dry_run()
            return {"changes": changes, "impact": await impact_of(self.node, changes, draft.services, held)}

    def refuse_late(self) -> None:
        """Raise `refusal`, if another process is in charge or this one ends."""
        if self.refusal is not None:
            raise self.refusal

    def _check(self, snapshot: Snapshot, if_match: str | None) -> None:
        self.refuse_late()
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

    async def _run(
        self, snapshot: Snapshot, by: PushedBy | None = None, *, save: bool = False
    ) -> list[Change]:
        changes = await in_slices(change_steps(self.snapshot.services, snapshot.services))
        draft = await self._prepare(snapshot)
        self._listeners.new.prepare(draft.addresses(), draft.listen_options())
        replicas = self._replicas
        try:
            await self._make_ready(snapshot, draft)
        except BaseException:
            if replicas is not None:
                replicas.abort()
            self._listeners.new.abandon()
            raise
        overridden = dict(self.node.overrides)
        await self.changer.swap(draft, self._listeners)
        old, self.snapshot = self.snapshot, snapshot
        events = self.node.events
        self.pushed_by = None if by is None else cast("PushOrigin", by.model_dump() | {"at": events.now()})
        work = [] if replicas is None else [replicas.commit()]
        if save:  # meanwhile: the disk takes as long as the workers
            work.append(self.store.save(snapshot, self._written))
        for outcome in await together(work):
            if outcome is not None:
                raise outcome
        events.emit(
            "applied",
            generation=snapshot.generation,
            hash=snapshot.hash,
            previous=old.generation,
            changes=len(changes),
            by=None if by is None else str(by),
        )
        tell_overruled(self.node, overridden)
        self.on_change()
        return changes

    async def _make_ready(self, snapshot: Snapshot, draft: Draft) -> None:
        """Make new backends, and at the same time have others make theirs: it is what takes longest."""
        work = [self.changer.make(draft)]
        if self._replicas is not None:
            work.append(self._replicas.prepare(snapshot, draft))
        for outcome in await together(work):
            if outcome is not None:
                raise outcome

    async def _prepare(self, snapshot: Snapshot) -> Draft:
        specs = []
        for name, service in snapshot.services.items():
            running, before = self.node.running.get(name), self.snapshot.services.get(name)
            if running is not None and service is before:
                specs.append(running.service.spec)
                continue
            known = known_specs(before, running.configured if running else {})
            backends: list[BackendSpec] = []
            async for some in pieces(service.backends):
                backends += backend_specs(some, known)
            specs.append(service_spec(name, service, backends))
            await asyncio.sleep(0)
        return await self.changer.prepare(specs)

    # -- the word of others ---------------------------------------------------------------------------

    def decide_all(self, verdicts: Mapping[str, Mapping[str, Verdict]]) -> list[str]:
        """Take others' verdicts (`PUT /v1/health`), which need no streak; return the `service/backend` of unknown ones.

        They hold until the next verdict of a check of our own, if there are any.
        """
        unknown = []
        for service, by_id in verdicts.items():
            for backend_id, verdict in by_id.items():
                found = find(self.node.running, service, backend_id)
                if found is None:
                    unknown.append(f"{service}/{backend_id}")
                    continue
                running, backend = found
                state, now = HealthState(verdict.state), self.node.reactor.clock()
                change = backend.health.decide(state, verdict.cause, now, reachable=verdict.reachable)
                up = state is HealthState.UP
                running.judged(backend, change, passed="said to be up" if up else "")
                self.node.on_judged(service, backend, changed=True, passed=up)
        return unknown

    async def patch(self, name: str, backend_id: str, patch: BackendPatch) -> dict[str, Any]:
        """Override a backend's state or weight until a snapshot changes that field; one that is not there is refused."""
        async with self.lock:
            self.refuse_late()
            (made,) = await self._override(name, {backend_id: patch}, placed=False)
            tell_override(self.node, name, made)
            return {"service": name, **made.says()}

    async def patch_all(self, name: str, data: object) -> dict[str, Any]:
        """Override backends of a service, the decoded body, as `patch` does: all of them, or none.

        One event tells how many overrides have begun and how many have ended.

        Raises:
            schemas.errors.InvalidDocument: 422.
            Refused: 404 or 503. Nothing has changed.
        """
        wanted = await in_slices(parse_backends_patch_steps(data))
        async with self.lock:
            self.refuse_late()
            made = await self._override(name, wanted.backends, placed=True)
            begun, ended = sum(bool(one.begun) for one in made), sum(bool(one.ended) for one in made)
            if begun or ended:
                self.node.events.emit("overrides", service=name, begun=begun, ended=ended)
            return {"service": name, "backends": [one.says() for one in made]}

    async def drain_all(self, *, draining: bool) -> None:
        """Give every connection in place its last deadline, or take that back; 503 for a process that is ending."""
        async with self.lock:
            self.refuse_late()
            services = [running.service for running in self.node.running.values()]
            await drain_all(services, self.node.events, draining=draining)
            if self._replicas is not None:
                await self._replicas.drain_all(draining=draining)

    async def _override(
        self, name: str, patches: Mapping[str, BackendPatch], *, placed: bool
    ) -> list[Override]:
        """Do so in all processes; `Refused` if that cannot be, with `placed` with the place of each unknown backend."""
        running, effective = await effective_specs(self.node, name, patches, placed=placed)
        words = await self.changer.prepare_words(running, effective)
        replicas = self._replicas
        if replicas is not None:
            try:
                await replicas.prepare_words(words)
            except BaseException:
                replicas.abort()
                raise
        made = await note_overrides(self.node, running, effective, patches)
        await self.changer.obey(words)
        if replicas is not None:
            await replicas.commit_words()
        return made
