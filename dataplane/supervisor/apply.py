"""A supervisor's changes: prepared and proposed to every worker, and run when all of them can."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dataplane.background import together
from dataplane.errors import PeerError, PeerGone, Refused
from dataplane.ipc.messages import PackedService, pack
from dataplane.node.apply import Applier
from dataplane.node.impact import impact_of
from dataplane.node.takeover_state import verdicts_of
from dataplane.report.merge import whole_services

if TYPE_CHECKING:
    from dataplane.core.spec import BackendSpec, ServiceSpec
    from dataplane.ipc.shared_counters import CounterBoard
    from dataplane.net.backend import Backend
    from dataplane.node.change import Draft
    from dataplane.node.node import Node
    from dataplane.node.snapshot_file import SnapshotStore
    from dataplane.supervisor.lending import Lending
    from dataplane.supervisor.listening_sockets import SocketGroup
    from dataplane.supervisor.worker_process import WorkerProcess
    from schemas.replies import Change, Impact
    from schemas.snapshot import Snapshot

__all__ = ["SupervisedApplier"]


class SupervisedApplier(Applier):
    """Changes what runs, in the supervisor and in every worker, or in none.

    1. The supervisor validates and prepares, as a single process does, and opens the sockets.
    2. Every worker stages the change. If one refuses, all forget it, and nothing has happened. One that dies has
       no say: its successor begins with whatever runs then.
    3. New clients are kept out of the listeners that go (see `SocketGroup`).
    4. The supervisor swaps, and every worker commits, which cannot fail: a worker that does is ended and replaced.
    5. Sockets of new addresses are lent; those of old ones, which no worker has any more, are closed.
    """

    def __init__(
        self,
        node: Node,
        store: SnapshotStore | None,
        sockets: SocketGroup,
        board: CounterBoard,
        lending: Lending,
    ) -> None:
        super().__init__(node, store, sockets)
        self._sockets = sockets
        self._lending = lending
        self._workers = lending.workers
        self._board = board

    # -- a change -------------------------------------------------------------------------------------

    async def propose(self, snapshot: Snapshot, draft: Draft) -> None:
        """Have every worker prepare `draft`, then keep clients out of the listeners that it removes.

        Raises:
            Refused: A worker cannot.
        """
        specs = [replace(one.spec, backends=tuple(one.effective.values())) for one in draft.services.values()]
        members = list(self._workers.serving.values())
        change = self._change(snapshot, specs)
        results = await together(one.ask("stage", change) for one in members)
        for member, result in zip(members, results, strict=True):
            if isinstance(result, Exception) and not isinstance(result, PeerGone):
                self._workers.tell_all("abandon")
                self._assign([running.service.spec for running in self.node.running.values()])
                if not isinstance(result, PeerError):
                    raise result
                raise Refused(503, "worker_refused", f"worker {member.index} refused: {result}")
        await self._sockets.keep_out(draft.addresses())

    async def carry_out(self) -> None:
        """Have every worker run what it has staged."""
        verdicts = verdicts_of(self.node)
        async with asyncio.TaskGroup() as group:
            for one in list(self._workers.serving.values()):
                group.create_task(self._commit(one, verdicts))
        await self._lending.spread()
        self._sockets.finish()
        self._workers.tell_all("put", self.node.whereabouts.all())
        self._workers.tell_all("arm")

    async def override(self, service: str, effective: BackendSpec) -> None:
        """Have every worker override a backend."""
        body = (service, effective.id, effective.state.value, effective.weight)
        try:
            await self._workers.ask_all("patch", body)
        except PeerError as error:
            raise Refused(503, "worker_refused", str(error)) from error

    async def impact(self, changes: list[Change], draft: Draft) -> Impact:
        """Say what a change would do, from the connections of all workers."""
        held: dict[tuple[str, str], tuple[int, int]] = {}
        for _, _, parts in await self._workers.ask_all("report", former=True):
            for name, service in whole_services(parts).items():
                for backend in service["backends"]:
                    active, pooled = held.get((name, backend["id"]), (0, 0))
                    held[name, backend["id"]] = (active + backend["active"], pooled + backend["pooled"])

        def of(service: str, backend: Backend) -> tuple[int, int]:
            return held.get((service, backend.id), (0, 0))

        return await impact_of(self.node, changes, draft.services, of)

    # -- one worker -----------------------------------------------------------------------------------

    async def brief(self, member: WorkerProcess) -> None:
        """Have a new worker run what runs.

        Raises:
            PeerGone: It has died.
            PeerError: It cannot.
        """
        specs = [
            replace(
                running.service.spec,
                backends=tuple(backend.spec for backend in running.service.backends.values()),
            )
            for running in self.node.running.values()
        ]
        await member.ask("stage", self._change(self.snapshot, specs))
        await member.ask("commit", verdicts_of(self.node))
        member.channel.send("put", self.node.whereabouts.all())
        member.channel.send("arm")

    def _change(self, snapshot: Snapshot, specs: list[ServiceSpec]) -> Any:
        """Return what a worker is told to stage; its pools are the node's, and find their own parts."""
        columns = self._assign(specs)
        packed: list[PackedService] = [pack(spec) for spec in specs]
        return snapshot.generation, snapshot.hash, packed, columns

    async def _commit(self, member: WorkerProcess, verdicts: Any) -> None:
        try:
            await member.ask("commit", verdicts)
        except PeerGone:
            return
        except PeerError as error:
            member.kill(f"it could not run a change: {error}")

    def _assign(self, specs: list[ServiceSpec]) -> dict[object, int]:
        keys: set[object] = {spec.name for spec in specs}
        keys |= {(spec.name, backend.id) for spec in specs for backend in spec.backends}
        return dict(self._board.assign(keys))
