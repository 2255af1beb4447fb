"""A change in all workers or in none.

1. The supervisor validates and prepares, as a single process does, and opens the sockets (`node.apply`).
2. Every worker stages the change. If one refuses, all forget it, and nothing has happened. One that dies has
   no say: its successor begins with whatever runs then.
3. New clients are kept out of the listeners that go (see `SocketGroup`).
4. The supervisor swaps, and every worker commits, which cannot fail: a worker that does is ended and replaced.
5. Sockets of new addresses are lent; those of old ones, which no worker has any more, are closed.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from dataplane.background import together
from dataplane.core.spec import BackendSpec, ServiceSpec
from dataplane.errors import PeerError, PeerGone, Refused
from dataplane.ipc.messages import Columns, PackedService, Verdict, pack
from dataplane.ipc.shared_counters import CounterBoard
from dataplane.net.backend import Backend
from dataplane.node.apply import EMPTY
from dataplane.node.change import Draft
from dataplane.node.impact import Held
from dataplane.node.initial import verdicts_of
from dataplane.node.node import Node
from dataplane.report.figures import total
from dataplane.supervisor.lending import Lending, SocketGroup
from dataplane.supervisor.workers import WorkerProcess
from schemas.snapshot import Snapshot


class WorkerReplicas:
    """A supervisor's workers, as those who run what it runs (dataplane.node.apply.Replicas)."""

    def __init__(self, node: Node, lending: Lending, sockets: SocketGroup, board: CounterBoard) -> None:
        self._node = node
        self._lending = lending
        self._workers = lending.workers
        self._sockets = sockets
        self._board = board
        self.lock = asyncio.Lock()
        """Held while what they run is changed."""
        self._running = self._staged = EMPTY.generation, EMPTY.hash
        """Generation and hash of what runs, and of what is prepared."""

    async def prepare(self, snapshot: Snapshot, draft: Draft) -> None:
        """Have every worker stage `draft`, or be `Refused`; then keep clients out of the listeners that it removes."""
        specs = [replace(one.spec, backends=tuple(one.effective.values())) for one in draft.services.values()]
        workers = list(self._workers.serving.values())
        self._staged = snapshot.generation, snapshot.hash
        change = self._change(self._staged, specs)
        results = await together(one.ask("stage", change) for one in workers)
        for worker, result in zip(workers, results, strict=True):
            if isinstance(result, PeerError):
                raise Refused(503, "worker_refused", f"worker {worker.index} refused: {result}")
            if isinstance(result, Exception) and not isinstance(result, PeerGone):
                raise result
        await self._sockets.keep_out(draft.addresses())

    def abort(self) -> None:
        """Have every worker forget what it has staged."""
        self._workers.tell_all("abandon")
        self._assign([running.service.spec for running in self._node.running.values()])

    async def commit(self) -> None:
        """Have every worker run what it has staged."""
        self._running = self._staged
        verdicts = verdicts_of(self._node)
        async with asyncio.TaskGroup() as group:
            for one in list(self._workers.serving.values()):
                group.create_task(self._commit(one, verdicts))
        await self._lending.spread()
        self._sockets.finish()
        self._workers.tell_all("put", self._node.backend_addresses.all())
        self._workers.tell_all("arm")

    @staticmethod
    async def _commit(worker: WorkerProcess, verdicts: list[Verdict]) -> None:
        try:
            await worker.ask("commit", verdicts)
        except PeerGone:
            return
        except PeerError as error:
            worker.kill(f"it could not run a change: {error}")

    async def override(self, service: str, effective: BackendSpec) -> None:
        """Have every worker override a backend."""
        body = (service, effective.id, effective.state.value, effective.weight)
        try:
            await self._workers.ask_all("patch", body)
        except PeerError as error:
            raise Refused(503, "worker_refused", str(error)) from error

    async def dry_run(self) -> Held:
        """Return what tells of the connections of all workers."""
        answers = await self._workers.ask_all("report", {"each": True}, former=True)
        figures = await total(part for _, _, told in answers for part in told)

        def of(service: str, backend: Backend) -> tuple[int, int]:
            known = figures.backends.get((service, backend.id))
            return (0, 0) if known is None else (known.active, known.pooled)

        return of

    async def brief(self, worker: WorkerProcess) -> None:
        """Have a new worker run what runs; raises what `WorkerProcess.ask` does."""
        specs = [
            replace(
                running.service.spec,
                backends=tuple(backend.spec for backend in running.service.backends.values()),
            )
            for running in self._node.running.values()
        ]
        await worker.ask("stage", self._change(self._running, specs))
        await worker.ask("commit", verdicts_of(self._node))
        worker.channel.send("put", self._node.backend_addresses.all())
        worker.channel.send("arm")

    def _change(
        self, which: tuple[int, str], specs: list[ServiceSpec]
    ) -> tuple[int, str, list[PackedService], Columns]:
        """Return what a worker is told to stage; its pools are the node's, and find their own parts."""
        columns = self._assign(specs)
        return *which, [pack(spec) for spec in specs], columns

    def _assign(self, specs: list[ServiceSpec]) -> Columns:
        keys: set[object] = {spec.name for spec in specs}
        keys |= {(spec.name, backend.id) for spec in specs for backend in spec.backends}
        return dict(self._board.assign(keys))
