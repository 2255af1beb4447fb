"""The life of a supervisor: from its first worker, or from the process that it takes over, to the last one drained."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from dataplane.api.name_release import Kept, move_away
from dataplane.api.routes import DataPlane
from dataplane.api.server import Endpoints, draining_path
from dataplane.background import Background, tell_bugs
from dataplane.errors import PeerError, PeerGone, Refused, StartError, TakeoverError
from dataplane.ipc.messages import WorkerSettings
from dataplane.ipc.shared_counters import CounterBoard
from dataplane.ipc.systemd import inherited_sockets, notify, watchdog
from dataplane.ipc.takeover import Giver, Taken, giver_path, orphans, take
from dataplane.net.goal import PoolShare
from dataplane.net.reactor import Reactor
from dataplane.net.sockopts import descriptor_limit
from dataplane.node.apply import Applier
from dataplane.node.initial import check_config, load_initial, reread
from dataplane.node.node import Node, OwnParts
from dataplane.node.resolver import Resolver
from dataplane.node.snapshot_file import SnapshotStore
from dataplane.node.takeover_state import Handover, inherit
from dataplane.report.report import Report
from dataplane.supervisor.apply import WorkerReplicas
from dataplane.supervisor.lending import Lending
from dataplane.supervisor.listening_sockets import SocketGroup
from dataplane.supervisor.node import CheckRelay
from dataplane.supervisor.operations import Operations
from dataplane.supervisor.succession import Succession
from dataplane.supervisor.tally import WorkerTally
from dataplane.supervisor.workers import Workers
from dataplane.telemetry.events import Events, draw_instance
from dataplane.telemetry.line_writer import LossWatch
from dataplane.telemetry.log import log_event
from schemas.errors import InvalidDocument
from schemas.snapshot import parse_snapshot
from schemas.system.unix_socket import InUse, OwnSocket

if TYPE_CHECKING:
    from dataplane.options import Options
    from dataplane.telemetry.line_writer import LineSink

__all__ = ["Supervision"]

RETRY_S: Final = 1.0
TODO: Final = (
    "clients are served; the API is as soon as this is out of the way: end the process that is in it"
)
MIN_ROWS: Final = 64
ROWS_A_WORKER: Final = 4
"""Room for former workers that drain (several restarts within a drain timeout), and for more workers later."""


class Supervision:
    """Wires a supervisor together, and runs it."""

    def __init__(self, options: Options, log: LineSink, own: OwnSocket, group: asyncio.TaskGroup) -> None:
        self._options = options
        self._log = log
        self._own = own
        self._group = group
        self._stop = asyncio.Event()
        """Set when somebody wants it to end, or another process has taken over."""
        self._background = Background(group)
        self._endpoints: Endpoints | None = None
        self._restarting = True
        """Or starting."""
        self._stopping = False
        """A signal has said so."""
        self._kept = Kept(self._on_loss)
        self.events = Events(log_event, time.time, draw_instance())
        self._reactor = Reactor(asyncio.get_running_loop(), descriptor_limit())
        self._workers = Workers(options.workers)
        self._board = CounterBoard(max(MIN_ROWS, ROWS_A_WORKER * options.workers))
        self._sockets = SocketGroup(lambda: self._workers.count)
        lending = Lending(self._workers, self._sockets)
        relay = CheckRelay(lambda found: self._workers.tell_all("judge", found))
        self._node = Node(self._reactor, self.events, random.SystemRandom(), OwnParts(PoolShare(cap=0)))
        self._node.on_judged = relay.judged
        self._node.clients_elsewhere = lambda service, backend: self._board.total((service, backend))
        self._node.whereabouts.on_put = lambda places: self._workers.tell_all("put", places)
        self._store = SnapshotStore(options.state_dir, options.name)
        replicas = WorkerReplicas(self._node, lending, self._sockets, self._board)
        self._applier = Applier(self._node, self._store, self._sockets, replicas)
        self._tally = WorkerTally(self._node, self._workers, relay, lambda: log.dropped)
        self._report = Report(options.name, self._applier, self._tally)
        settings = WorkerSettings(
            name=options.name,
            runtime_dir=options.runtime_dir,
            recording=options.recording,
            log_format=options.log_format,
            affinity=options.cpu_affinity,
        )
        self._succession = Succession(self._workers, lending, self._board, settings, replicas, self._tally)
        most = self._board.rows // 2
        self._operations = Operations(
            self._succession, lending, self._sockets, self._applier, most, self.events.emit
        )
        self._plane = DataPlane(self._applier, self._report, self._node, self._operations, self.events)
        self._resolver = Resolver(self._node)
        self._applier.on_change = self._on_change

    def _on_change(self) -> None:
        self._tally.forget_gone()
        self._resolver.wake()

    async def run(self) -> None:
        """Serve until told to stop, or taken over; then wait until the last worker has drained.

        Raises:
            StartError: What the command line or the environment asks for cannot be had.
        """
        tell_bugs(self.events.emit)
        self._handle_signals()
        self._reactor.start()
        LossWatch({"log": self._log}, self.events.emit).start(self._reactor)
        # A bug of ours that is met there ends this process: its workers serve on, until the next one has their sockets.
        watching = self._group.create_task(self._workers.run())
        keep = self._background.keep
        keep("checking backends", self._node.prober.run)
        keep("looking up names", self._resolver.run)
        keep("saving the snapshot", self._applier.keep_saved)
        try:
            options = self._options
            self._endpoints = Endpoints(
                options.api,
                options.metrics,
                options.credentials,
                self.events.emit,
                beside=options.takeover,
            )
            await self._begin(self._endpoints)
            giver = self._background.begin("offering a takeover", self._giver().run)
            keep("the watchdog", watchdog)
            keep("showing that it lives", self._own.live)
            notify(f"READY=1\nMAINPID={self._kept.main_pid}")
            self._say_started()
            self._restarting = False
            await self._stop.wait()
            notify("STOPPING=1")
            await self._end(giver)
            away = OwnSocket(draining_path(options.runtime_dir, options.name, os.getpid()))
            await move_away(self._endpoints, self._plane, self._own, away, self.events.emit)
            if self._stopping:
                self._kept.let_go()
            await self._workers.wait_empty()
        except StartError as error:
            await self._give_up(error)
            raise
        finally:
            # Should a bug of ours have brought us here, the workers live on, as if the supervisor had been killed.
            self.events.close()
            self._background.cancel()
            watching.cancel()
            if self._endpoints is not None:
                await self._endpoints.cleanup()
            self._sockets.leave()
            self._reactor.close()
        self.events.emit("stopped", pid=os.getpid())

    # -- the beginning --------------------------------------------------------------------------------

    async def _begin(self, endpoints: Endpoints) -> None:
        """Have everything run, and serve the API.

        Raises:
            StartError: It cannot be had; whoever was to be taken over goes on.
        """
        options = self._options
        try:
            if options.takeover:
                await self._take_over(endpoints)
                return
            async with AsyncExitStack() as stack:
                predecessors = await self._take_from_orphans(stack)
                self._sockets.new.inherit(inherited_sockets())
                await load_initial(self._applier, self._store, options.config)
                await self._succession.start()
                endpoints.listen()
                for taken in predecessors:
                    await taken.confirm()
                    taken.serve()
            await self._close_unused()
            await endpoints.serve(self._plane, self._own)
        except (PeerGone, PeerError) as error:
            cause = str(error) or "it died while starting"
            raise StartError(f"a worker could not start: {cause}") from error
        except OSError as error:
            raise StartError(str(error)) from error

    async def _take_over(self, endpoints: Endpoints) -> None:
        """Take over. All that can fail comes before `confirm`: from then on nothing ends this process.

        Raises:
            StartError: Something did fail, and the process that runs goes on.
        """
        if self._options.config is not None:
            await asyncio.to_thread(check_config, self._options.config)
        path = giver_path(self._options.runtime_dir, self._options.name)
        try:
            async with take(path) as taken:
                await self._run_what_was_taken(taken)
                await self._succession.start()
                endpoints.listen()
                self._see_that_it_is_wanted()
                await taken.confirm()
                await self._succeed(taken, endpoints)
                taken.serve()
        except TakeoverError as error:
            raise StartError(f"--takeover: {error}") from error
        except (InvalidDocument, Refused) as error:
            raise StartError(f"--takeover: what runs cannot be run here: {error}") from error
        if self._options.config is not None:
            await reread(self._applier, self._options.config)

    def _see_that_it_is_wanted(self) -> None:
        """Take nothing over only to end: the process that runs serves.

        Raises:
            TakeoverError: A signal has come.
        """
        if self._stop.is_set():
            raise TakeoverError("this process was told to end")

    async def _succeed(self, taken: Taken, endpoints: Endpoints) -> None:
        """Serve the API in the place of the process taken over; the workers serve its clients already.

        Raises:
            TakeoverError: That process has not let go, and never will.
        """
        told = False
        while not self._stop.is_set():
            try:
                self._own.acquire()
                await endpoints.serve(self._plane, self._own)
                return
            except (InUse, OSError) as error:
                if taken.not_released and isinstance(error, InUse):
                    raise TakeoverError("the running process had stopped waiting, and goes on") from error
                if not told:
                    self.events.emit("api_not_served", cause=str(error), todo=TODO)
                told = True
                await asyncio.sleep(RETRY_S)

    async def _give_up(self, cause: StartError) -> None:
        """End the workers. If others serve on, these lose no client either whom they have accepted already."""
        if self._options.takeover and self._workers.serving:
            self.events.emit("takeover_failed", cause=str(cause))
            await self._succession.let_all_go(last=False)
            await self._workers.wait_empty()
        self._succession.kill_all()

    async def _run_what_was_taken(self, taken: Taken) -> None:
        snapshot = parse_snapshot(taken.state["snapshot"])
        wanted = {address for service in snapshot.services.values() for address in service.addresses}
        if wanted != taken.sockets.keys():
            different = ", ".join(sorted(wanted ^ taken.sockets.keys()))
            raise TakeoverError(f"sockets and snapshot do not agree on {different}")
        self._sockets.new.inherit(taken.sockets)
        await self._applier.restore(snapshot)
        await inherit(self._applier, taken.state)
        if not taken.state.get("saved", True):
            self._applier.saving.owe(snapshot)

    async def _take_from_orphans(self, stack: AsyncExitStack) -> list[Taken]:
        """Take the sockets of workers whose supervisor was killed; a worker that does not give is left alone."""
        predecessors = []
        for path in orphans(self._options.runtime_dir, self._options.name):
            try:
                taken = await stack.enter_async_context(take(path))
            except TakeoverError as error:
                self.events.emit("orphan_gives_nothing", path=str(path), cause=str(error))
                path.unlink(missing_ok=True)
                continue
            self._sockets.new.inherit(taken.sockets)
            predecessors.append(taken)
        return predecessors

    async def _close_unused(self) -> None:
        unused = await self._sockets.close_inherited() if self._applier.snapshot.generation else []
        for address in unused:
            self.events.emit("inherited_unused", address=address)

    def _say_started(self) -> None:
        descriptors = descriptor_limit()
        ceiling = self._reactor.accept_ceiling
        self.events.emit(
            "started",
            **self._report.info(),
            socket=str(self._own.path),
            descriptors=descriptors,
            clients_a_worker=ceiling // 2,
        )

    # -- the end --------------------------------------------------------------------------------------

    async def _end(self, giver: asyncio.Task[None]) -> None:
        """Stop accepting, unless another process does that now in our place; serve who is in the queues."""
        if not self._stopping:
            await giver
            return
        giver.cancel()
        async with self._applier.lock:
            if self._applier.refusal is None:  # else somebody has taken over just now
                await self._applier.saving.again()
                self._applier.refusal = Refused(503, "stopping", "the process is ending")
                self._report.draining_since = self.events.now()
                await self._sockets.keep_out()
                await self._succession.let_all_go(last=True)

    def _giver(self) -> Giver:
        path = giver_path(self._options.runtime_dir, self._options.name)
        holder = Handover(self._applier, self._sockets.pairs, self._let_go)
        return Giver(path, holder, self.events)

    async def _let_go(self, refusal: Refused) -> None:
        """Have the workers stop accepting, and let go of the sockets; another process has them."""
        self._applier.refusal = refusal
        self._report.draining_since = self.events.now()
        await self._succession.let_all_go(last=False)
        self._own.unlock()
        self.events.emit("handed_over")
        self._stop.set()

    # -- signals --------------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        loop.add_signal_handler(signal.SIGUSR1, self._workers.reopen)

    def _on_stop_signal(self, number: signal.Signals) -> None:
        if self._stopping:
            self.events.emit("stopping_now", signal=number.name)
            if self._endpoints is not None:
                self._endpoints.abandon()
            self._succession.kill_all()
            self._log.close()
            os._exit(1)
        self._stopping = True
        self.events.emit("stopping", signal=number.name)
        self._stop.set()

    def _on_loss(self) -> None:
        """Die as the process has that the service manager knows: the next one takes the sockets from the workers."""
        if not self._stop.is_set():
            self._log.close()
            os._exit(1)

    def _on_hangup(self) -> None:
        if self._restarting:
            self.events.emit("restart_refused", cause="a start or a restart is under way")
            return
        self._restarting = True
        self._background.once("restarting workers", self._restart)

    async def _restart(self) -> None:
        try:
            with contextlib.suppress(Refused):  # told already
                await self._operations.restart()
        finally:
            self._restarting = False
