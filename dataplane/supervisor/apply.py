"""A change in all workers or in none.

1. The supervisor validates and prepares, as a single process does, and opens the sockets (`node.apply`).
2. Every worker stages the change. If one refuses, all forget it, and nothing has happened. One that dies has
   no say: its successor begins with whatever runs then.
3. New clients are kept out of the listeners that go (see `SocketGroup`).
4. The supervisor swaps, and every worker commits, which cannot fail: a worker that does is ended and replaced.
5. Sockets of new addresses are lent; those of old ones, which no worker has any more, are closed.

What operators want of backends (`Words`) takes steps 2 and 4 alone.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from dataplane.background import together
from dataplane.core.spec import ServiceSpec
from dataplane.errors import PeerError, PeerGone, Refused
from dataplane.ipc.messages import Columns, PackedService, pack
from dataplane.ipc.shared_counters import CounterBoard
from dataplane.net.backend import Backend
from dataplane.node.apply import EMPTY
from dataplane.node.change import Draft, Words
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
        self._staged = snapshot.generation, snapshot.hash
        await self._stage("stage", self._change(self._staged, specs))
        await self._sockets.keep_out(draft.addresses())

    def abort(self) -> None:
        """Have every worker forget what it has staged."""
        self._workers.tell_all("abandon")
        self._assign([running.service.spec for running in self._node.running.values()])

    async def commit(self) -> None:
        """Have every worker run what it has staged."""
        self._running = self._staged
        await self._commit("commit", verdicts_of(self._node))
        await self._lending.spread()
        self._sockets.finish()
        self._workers.tell_all("put", self._node.backend_addresses.all())
        self._workers.tell_all("arm")

    async def prepare_words(self, words: Words) -> None:
        """Have every worker stage what operators want of backends, or be `Refused`."""
        told = [(spec.id, spec.state.value, spec.weight) for spec in words.specs]
        await self._stage("stage_words", (words.running.service.name, told))

    async def commit_words(self) -> None:
        """Have every worker do what it has staged."""
        await self._commit("commit_words", None)

    async def _stage(self, kind: str, body: Any) -> None:
        """Have every worker prepare something; `Refused` if one cannot."""
        workers = list(self._workers.serving.values())
        results = await together(one.ask(kind, body) for one in workers)
        for worker, result in zip(workers, results, strict=True):
            if isinstance(result, PeerError):
                raise Refused(503, "worker_refused", f"worker {worker.index} refused: {result}")
            if isinstance(result, Exception) and not isinstance(result, PeerGone):
                raise result

    async def _commit(self, kind: str, body: Any) -> None:
        """Have every worker do what it has prepared; one that cannot is ended."""

        async def ask(worker: WorkerProcess) -> None:
            try:
                await worker.ask(kind, body)
            except PeerGone:
                return
            except PeerError as error:
                worker.kill(f"it could not run a change: {error}")

        async with asyncio.TaskGroup() as group:
            for one in list(self._workers.serving.values()):
                group.create_task(ask(one))

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
