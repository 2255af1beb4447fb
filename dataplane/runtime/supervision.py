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

from dataplane.net.reactor import Reactor
from dataplane.net.sockopts import descriptor_limit
from dataplane.runtime.change import Refused
from dataplane.runtime.channel import Gone, PeerError
from dataplane.runtime.compact import CrewSettings
from dataplane.runtime.crew import Crew
from dataplane.runtime.endpoint import Endpoints, InUse, OwnSocket
from dataplane.runtime.events import Events
from dataplane.runtime.handover import Giver, HandoverError, Taken, giver_path, orphans, take
from dataplane.runtime.instance import draw_instance
from dataplane.runtime.logs import log_event
from dataplane.runtime.notify import inherited_sockets, notify, watchdog
from dataplane.runtime.proposal import SupervisedApplier
from dataplane.runtime.resolver import Resolver
from dataplane.runtime.shared_counters import CounterBoard
from dataplane.runtime.sockets import SocketGroup
from dataplane.runtime.startup import StartError, check_config, load_initial, reread
from dataplane.runtime.store import SnapshotStore
from dataplane.runtime.supervisor import Supervisor
from dataplane.runtime.supervisor_node import SupervisorNode
from schemas.errors import InvalidDocument
from schemas.snapshot import parse_snapshot

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from aiohttp import web

    from dataplane.runtime.options import Options
    from dataplane.runtime.sink import LineSink

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
        self._tasks: list[asyncio.Task[Any]] = []
        self._restarting = False
        self.events = Events(log_event, time.time, draw_instance(os.urandom))
        self._reactor = Reactor(asyncio.get_running_loop(), descriptor_limit())
        self._board = CounterBoard(max(MIN_ROWS, ROWS_A_WORKER * options.workers))
        self._sockets = SocketGroup(lambda: self._crew.count)
        self._node = SupervisorNode(
            self._reactor,
            self.events,
            random.SystemRandom(),
            lambda found: self._crew.tell_all("judge", found),
            lambda service, backend: self._board.total((service, backend)),
        )
        self._store = SnapshotStore(options.state_dir, options.name)
        self._applier = SupervisedApplier(self._node, self._store, self._sockets, self._board)
        self._supervisor = Supervisor(
            options.name, self._node, self._applier, self._sockets, self.events, self._board.rows // 2
        )
        settings = CrewSettings(
            name=options.name,
            runtime_dir=options.runtime_dir,
            recording=options.recording,
            log_format=options.log_format,
            affinity=options.cpu_affinity,
        )
        self._crew = Crew(options.workers, settings, self._sockets, self._board, self._supervisor)
        self._applier.crew = self._supervisor.crew = self._crew
        self._resolver = Resolver(self._node)
        self._applier.on_change = self._on_change
        self._supervisor.on_released = self._own.unlock
        self._supervisor.dropped_lines = lambda: log.dropped

    def _on_change(self) -> None:
        self._supervisor.forget_gone()
        self._resolver.wake()

    async def run(self) -> None:
        """Serve until told to stop, or taken over; then wait until the last worker has drained.

        Raises:
            StartError: What the command line or the environment asks for cannot be had.
        """
        self._handle_signals()
        self._reactor.start()
        self._spawn(self._crew.run())
        self._spawn(self._node.prober.run())
        self._spawn(self._resolver.run())
        self._spawn(self._applier.keep_saved())
        runners: list[web.AppRunner] = []
        try:
            runners = await self._begin()
            giver = self._task(self._give())
            self._spawn(watchdog())
            notify(f"READY=1\nMAINPID={os.getpid()}")
            self._say_started()
            stop = self._task(self._stop.wait())
            await asyncio.wait({giver, stop}, return_when=asyncio.FIRST_COMPLETED)
            notify("STOPPING=1")
            if self._stop.is_set():
                await self._end()
            else:
                self.events.emit("handed_over")
                await self._cleanup(runners)
            await self._crew.wait_empty()
        except StartError as error:
            await self._give_up(error)
            raise
        finally:
            # Should a bug of ours have brought us here, the workers live on, as if the supervisor had been killed.
            self.events.close()
            for task in self._tasks:
                task.cancel()
            await self._cleanup(runners)
            self._sockets.leave()
            self._reactor.close()
        self.events.emit("stopped", pid=os.getpid())

    # -- the beginning --------------------------------------------------------------------------------

    async def _begin(self) -> list[web.AppRunner]:
        """Have everything run, and serve the API.

        Raises:
            StartError: It cannot be had; whoever was to be taken over goes on.
        """
        options = self._options
        endpoints = Endpoints(options, self.events.emit, beside=options.takeover)
        try:
            if options.takeover:
                return await self._take_over(endpoints)
            async with AsyncExitStack() as stack:
                predecessors = await self._take_from_orphans(stack)
                for address, group in inherited_sockets().items():
                    self._sockets.inherited.setdefault(address, []).extend(group)
                await load_initial(self._applier, self._store, options.config)
                await self._crew.start()
                endpoints.listen()
                for taken in predecessors:
                    await taken.confirm()
                    taken.serve()
            await self._close_unused()
            return await endpoints.serve(self._supervisor, self._own)
        except BaseException as error:
            endpoints.close()
            if isinstance(error, (Gone, PeerError)):
                cause = str(error) or "it died while starting"
                raise StartError(f"a worker could not start: {cause}") from error
            if isinstance(error, OSError):
                raise StartError(str(error)) from error
            raise

    async def _take_over(self, endpoints: Endpoints) -> list[web.AppRunner]:
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
                await self._crew.start()
                endpoints.listen()
                await taken.confirm()
                runners = await self._succeed(taken, endpoints)
                taken.serve()
        except HandoverError as error:
            raise StartError(f"--takeover: {error}") from error
        except (InvalidDocument, Refused) as error:
            raise StartError(f"--takeover: what runs cannot be run here: {error}") from error
        if self._options.config is not None:
            await reread(self._applier, self._options.config)
        return runners

    async def _succeed(self, taken: Taken, endpoints: Endpoints) -> list[web.AppRunner]:
        """Serve the API in the place of the process taken over; the workers serve its clients already.

        Raises:
            HandoverError: That process has not let go, and never will.
        """
        told = False
        while not self._stop.is_set():
            try:
                self._own.acquire()
                return await endpoints.serve(self._supervisor, self._own)
            except (InUse, OSError) as error:
                if taken.not_released and isinstance(error, InUse):
                    raise HandoverError("the running process had stopped waiting, and goes on") from error
                if not told:
                    self.events.emit("api_not_served", cause=str(error), todo=TODO)
                told = True
                await asyncio.sleep(RETRY_S)
        return []

    async def _give_up(self, cause: StartError) -> None:
        """End the workers. If others serve on, these lose no client either whom they have accepted already."""
        if self._options.takeover and self._crew.members:
            self.events.emit("takeover_failed", cause=str(cause))
            await self._crew.let_all_go(last=False)
            await self._crew.wait_empty()
        self._crew.kill_all()

    async def _run_what_was_taken(self, taken: Taken) -> None:
        snapshot = parse_snapshot(taken.state["snapshot"])
        wanted = {address for service in snapshot.services.values() for address in service.listen}
        if wanted != taken.sockets.keys():
            different = ", ".join(sorted(wanted ^ taken.sockets.keys()))
            raise HandoverError(f"sockets and snapshot do not agree on {different}")
        self._sockets.inherited = taken.sockets
        await self._applier.restore(snapshot)
        await self._supervisor.inherit(taken.state)
        if not taken.state.get("saved", True):
            self._applier.saving.owe(snapshot)

    async def _take_from_orphans(self, stack: AsyncExitStack) -> list[Taken]:
        """Take the sockets of workers whose supervisor was killed; a worker that does not give is left alone."""
        predecessors = []
        for path in orphans(self._options.runtime_dir, self._options.name):
            try:
                taken = await stack.enter_async_context(take(path))
            except HandoverError as error:
                self.events.emit("orphan_gives_nothing", path=str(path), cause=str(error))
                path.unlink(missing_ok=True)
                continue
            for address, group in taken.sockets.items():
                self._sockets.inherited.setdefault(address, []).extend(group)
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
            **self._supervisor.info(),
            socket=str(self._own.path),
            descriptors=descriptors,
            clients_a_worker=ceiling // 2,
        )

    # -- the end --------------------------------------------------------------------------------------

    async def _end(self) -> None:
        """Keep new clients out, serve those in the queues, and have the workers drain."""
        async with self._applier.lock:
            self._supervisor.stopping = True
            self._applier.refusal = Refused(503, "stopping", "the process is ending")
            await self._sockets.keep_out()
            await self._crew.let_all_go(last=True)

    async def _give(self) -> None:
        path = giver_path(self._options.runtime_dir, self._options.name)
        await Giver(path, self._supervisor).run()

    @staticmethod
    async def _cleanup(runners: list[web.AppRunner]) -> None:
        while runners:
            await runners.pop().cleanup()

    # -- signals --------------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        loop.add_signal_handler(signal.SIGUSR1, self._crew.reopen)

    def _on_stop_signal(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            self.events.emit("stopping_now", signal=number.name)
            self._crew.kill_all()
            self._log.close()
            os._exit(1)
        self.events.emit("stopping", signal=number.name)
        self._stop.set()

    def _on_hangup(self) -> None:
        if self._restarting:
            self.events.emit("restart_refused", cause="a restart is under way")
            return
        self._restarting = True
        self._spawn(self._restart())

    async def _restart(self) -> None:
        try:
            with contextlib.suppress(Refused):  # told already
                await self._supervisor.restart()
        finally:
            self._restarting = False

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        _ = self._task(work)

    def _task(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._group.create_task(work)
        self._tasks = [one for one in self._tasks if not one.done()] + [task]
        return task
