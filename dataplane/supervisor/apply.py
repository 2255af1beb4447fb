"""A change in all workers or in none.

1. The supervisor validates and prepares, as a single process does, and opens the sockets (`node.apply`).
2. Every worker stages the change, of which it is sent what is other than it runs (`Difference`). If one refuses, all forget it, and nothing has happened. One that dies has
   no say: its successor begins with whatever runs then.
3. New clients are kept out of the listeners that go (see `SocketGroup`).
4. The supervisor swaps, and every worker commits, which cannot fail: a worker that does is ended and replaced.
5. Sockets of new addresses are lent; those of old ones, which no worker has any more, are closed.

What operators want of backends (`Words`) takes steps 2 and 4 alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from dataplane.background import together
from dataplane.core.spec import ServiceSpec
from dataplane.errors import PeerError, PeerGone, Refused
from dataplane.ipc.messages import dump, pack_columns
from dataplane.ipc.shared_counters import CounterBoard
from dataplane.net.backend import Backend
from dataplane.node.apply import EMPTY
from dataplane.node.change import Draft, Words
from dataplane.node.impact import Held
from dataplane.node.initial import verdicts_of
from dataplane.node.node import Node
from dataplane.report.figures import total
from dataplane.supervisor.difference import Difference, as_running, whole
from dataplane.supervisor.lending import Lending, SocketGroup
from dataplane.supervisor.workers import WorkerProcess
from schemas.snapshot import Snapshot

Ask = Callable[[WorkerProcess], Coroutine[Any, Any, object]]


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
        self._news: dict[str, set[str]] = {}
        """Backends of what is prepared that workers do not know yet, or otherwise, by service."""
        self._behind: set[WorkerProcess] = set()
        """Those who ran something else, and have been sent all of what is prepared."""

    async def prepare(self, snapshot: Snapshot, draft: Draft) -> None:
        """Have every worker stage `draft`, or be `Refused`; then keep clients out of the listeners that it removes."""
        self._staged = which = snapshot.generation, snapshot.hash
        difference = Difference(draft, self._node.running)
        columns = None if difference.same_names() else self._assign(difference.specs)
        change = difference.change(which, self._running, columns)
        self._news = difference.news()

        async def ask(worker: WorkerProcess) -> None:
            taken, _ = await worker.ask("stage", change)
            if taken is False:
                self._behind.add(worker)
                await worker.ask("stage", difference.whole(which, self._assign(difference.specs)))

        self._behind.clear()
        await self._have_prepared(ask)
        await self._sockets.keep_out(draft.addresses())

    def abort(self) -> None:
        """Have every worker forget what it has staged."""
        self._workers.tell_all("abandon")
        self._assign([running.service.spec for running in self._node.running.values()])

    async def commit(self) -> None:
        """Have every worker run what it has staged."""
        self._running = self._staged
        news = verdicts_of(self._node, self._news)
        every = verdicts_of(self._node) if self._behind else news
        await self._have_done(lambda one: one.ask("commit", every if one in self._behind else news))
        await self._lending.spread()
        self._sockets.finish()
        self._workers.tell_all("put", self._node.backend_addresses.all())
        self._workers.tell_all("arm")

    async def prepare_words(self, words: Words) -> None:
        """Have every worker stage what operators want of backends, or be `Refused`."""
        told = [(spec.id, spec.state, spec.weight) for spec in words.specs]
        known = words.running.tables
        tables = {tier: table for tier, table in words.tables.items() if known.get(tier) is not table}
        body = words.running.service.name, told, dump(tables)
        await self._have_prepared(lambda one: one.ask("stage_words", body))

    async def commit_words(self) -> None:
        """Have every worker do what it has staged."""
        await self._have_done(lambda one: one.ask("commit_words"))

    async def drain_all(self, *, draining: bool) -> None:
        """Have every worker give its connections their last deadline, or take that back."""
        await self._have_prepared(lambda one: one.ask("drain_all", draining))

    async def _have_prepared(self, ask: Ask) -> None:
        """Ask every worker to prepare something; `Refused` if one cannot."""
        workers = list(self._workers.serving.values())
        results = await together(ask(one) for one in workers)
        for worker, result in zip(workers, results, strict=True):
            if isinstance(result, PeerError):
                raise Refused(503, "worker_refused", f"worker {worker.index} refused: {result}")
            if isinstance(result, Exception) and not isinstance(result, PeerGone):
                raise result

    async def _have_done(self, ask: Ask) -> None:
        """Ask every worker to do what it has prepared; one that cannot is ended."""

        async def do(worker: WorkerProcess) -> None:
            try:
                await ask(worker)
            except PeerGone:
                return
            except PeerError as error:
                worker.kill(f"it could not run a change: {error}")

        async with asyncio.TaskGroup() as group:
            for one in list(self._workers.serving.values()):
                group.create_task(do(one))

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
        running = map(as_running, self._node.running.values())
        specs = [replace(one.options, backends=tuple(one.backends.values())) for one in running]
        await worker.ask("stage", whole(self._running, specs, self._assign(specs)))
        await worker.ask("commit", verdicts_of(self._node))
        worker.channel.send("put", self._node.backend_addresses.all())
        worker.channel.send("arm")

    def _assign(self, specs: list[ServiceSpec]) -> list[bytes]:
        """Return the columns of all that is to run, packed; pools are the node's, and find their own parts."""
        keys: set[object] = {spec.name for spec in specs}
        keys |= {(spec.name, backend.id) for spec in specs for backend in spec.backends}
        return pack_columns(self._board.assign(keys))
