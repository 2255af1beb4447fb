"""A supervisor: what a data plane with workers does as a process, from its first worker to the last one drained.

Theory of operation:

1. What runs is kept and checked here once (`Node`), and is run by each worker (`WorkerReplicas`). Nothing is relayed here.
2. What is counted is each worker's, and told as one (`WorkerTally`).
3. The listening sockets are opened here (`SocketGroup`) and lent. So a worker that dies loses its own connections and
   nothing else, and a supervisor that dies loses none: its workers have copies (`worker.process`).
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
from contextlib import AsyncExitStack
from typing import Any, Final

from dataplane.api.server import Endpoints
from dataplane.core.phase import Phase
from dataplane.errors import Refused, StartError
from dataplane.ipc.messages import WorkerSettings
from dataplane.ipc.shared_counters import CounterBoard
from dataplane.ipc.systemd import inherited_sockets
from dataplane.net.goal import PoolShare
from dataplane.node.apply import Applier
from dataplane.node.initial import load_initial, reread
from dataplane.node.node import Node
from dataplane.node.slices import tune_collector
from dataplane.process import Process
from dataplane.supervisor.apply import WorkerReplicas
from dataplane.supervisor.fork_server import ForkServer
from dataplane.supervisor.lending import Lending, SocketGroup
from dataplane.supervisor.succession import FAILURES, Succession
from dataplane.supervisor.takeover import Successor
from dataplane.supervisor.tally import WorkerTally
from dataplane.supervisor.workers import Workers

MIN_ROWS: Final = 64
ROWS_A_WORKER: Final = 4
"""Room for former workers that drain (several restarts within a drain timeout), and for more workers later."""


class Supervision:
    """Has workers relay (dataplane.process.Role); `begun`: see `ForkServer`."""

    def __init__(self, process: Process, begun: tuple[int, socket.socket] | None = None) -> None:
        options, events = process.options, process.events
        self._process = process
        self._restarting = False
        self._workers = workers = Workers(options.workers)
        # A bug of ours that is met there ends this process: its workers serve on, until the next one has their sockets.
        self._watching = process.group.create_task(workers.run())
        self._board = board = CounterBoard(max(MIN_ROWS, ROWS_A_WORKER * options.workers))
        self._sockets = SocketGroup(lambda: workers.count)
        self._lending = lending = Lending(workers, self._sockets)
        node = Node(process.reactor, events, random.SystemRandom(), PoolShare(cap=0))
        node.clients_elsewhere = lambda service, backend: board.total((service, backend))
        node.backend_addresses.on_put = lambda places: workers.tell_all("put", places)
        replicas = WorkerReplicas(node, lending, self._sockets, board)
        self.applier = Applier(node, process.store, self._sockets, replicas)
        self.source = tally = WorkerTally(node, workers, lambda: process.log.dropped)
        node.on_judged = tally.judged
        self.applier.on_change = tally.forget_gone
        settings = WorkerSettings(
            name=options.name,
            runtime_dir=options.runtime_dir,
            recording=options.recording,
            log_format=options.log_format,
            affinity=options.cpu_affinity,
        )
        self._succession = Succession(workers, lending, board, settings, replicas, tally)
        self._succession.server = ForkServer(begun)
        self._successor = Successor(process, self.applier, self._sockets, self._succession)
        self.reopen = workers.reopen
        self.sockets = self._sockets.pairs
        self.wait_empty = workers.wait_empty

    async def begin(self, endpoints: Endpoints) -> None:
        """Have workers run what there is, or what another process runs, and serve the API."""
        tune_collector()
        try:
            if self._process.options.takeover:
                await self._successor.take_over(endpoints)
            else:
                await self._begin_anew(endpoints)
        except StartError as error:
            await self._give_up(error)
            raise
        except FAILURES as error:
            said = str(error)
            if not isinstance(error, OSError):
                said = f"a worker could not start: {said or 'it died while starting'}"
            failure = StartError(said)
            await self._give_up(failure)
            raise failure from error

    async def _begin_anew(self, endpoints: Endpoints) -> None:
        process = self._process
        async with AsyncExitStack() as stack:
            predecessors = await self._successor.take_from_orphans(stack)
            activated = inherited_sockets()
            self._sockets.new.inherit(activated)
            await load_initial(self.applier, process.options.config)
            await self._succession.start()
            await endpoints.listen(relays=False)
            for taken in predecessors:
                await taken.confirm()
                taken.serve()
        # Without a snapshot a service manager's sockets wait for one, and their clients with them: nobody could open them
        # again. Those of orphans have nobody who would ever accept from them.
        waiting = () if self.applier.snapshot.generation else activated
        for address in await self._sockets.close_inherited(waiting):
            process.events.emit("inherited_unused", address=address)
        await endpoints.serve()

    async def _give_up(self, cause: StartError) -> None:
        """End the workers. If others serve on, these lose no client either whom they have accepted already."""
        if self._process.options.takeover and self._workers.serving:
            self._process.events.emit("takeover_failed", cause=str(cause))
            await self._succession.let_all_go(last=False)
            await self._workers.wait_empty()
        self.kill()

    def connections(self) -> int:
        """Return how many clients all workers have."""
        return sum(self._board.total(name) for name in self.applier.node.running)

    async def leave(self, *, last: bool) -> None:
        """Have the workers stop accepting; for good, new clients are kept out first."""
        if last:
            await self._sockets.keep_out()
        await self._succession.let_all_go(last=last)

    async def close(self) -> None:
        """Let go of everything. Should a bug of ours have brought us here, the workers live on, as if this process had been killed."""
        self._watching.cancel()
        self._sockets.leave()
        await self._succession.server.close()

    def kill(self) -> None:
        """End all workers now, and start none any more."""
        self._lending.stopped = True
        self._workers.kill_all()

    async def restart(self) -> dict[str, Any]:
        """Replace every worker (`Succession.restart`)."""
        self.applier.refuse_late()
        return await self._succession.restart()

    async def resize(self, count: int) -> dict[str, Any]:
        """Change the number of workers (`Succession.resize`)."""
        self.applier.refuse_late()
        return await self._succession.resize(count)

    def hang_up(self) -> None:
        """Read --config again, if there is one, and replace all workers, one by one."""
        if self._restarting or self._process.life.phase in {Phase.STARTING, Phase.TAKING_OVER}:
            self._process.events.emit("restart_refused", cause="a start or a restart is under way")
            return
        self._restarting = True
        self._process.background.once("restarting workers", self._restart)

    async def _restart(self) -> None:
        config = self._process.options.config
        try:
            if config is not None:
                await reread(self.applier, config)
            with contextlib.suppress(Refused):  # told already
                await self.restart()
        finally:
            self._restarting = False

    def lose_keeper(self) -> None:
        """Die as the process has that the service manager knows: the next one takes the sockets from the workers."""
        if self._process.life.leaving_since is None:
            self._process.log.close()
            os._exit(1)
