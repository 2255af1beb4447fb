"""What every data plane is as a process, with workers or without: it is known by a name, and has an end in good order.

Theory of operation:

1. `core.phase` has the phases of its life. What a process relays with, alone or through workers, is its `Role`.
2. A takeover is offered as long as it serves. Who takes over has the listening sockets; from then on nothing is changed here
   (`Applier.refusal`).
3. Told to end, it closes its listening sockets itself, after whoever waits in their queues has been served.
4. Either way it then gives its name away, so that the next process of that name serves at once: the API moves to a socket of
   the process's own (`draining_path`), and the name, its lock and its addresses on TCP are free. So whoever gets the lock
   can have everything else, too. `lb-control` shows what is behind such a socket as draining, and asks nothing else of it.
5. With `--drain-detached`, who has to do with the service manager ends now (`dataplane.keeper`).
6. When the last connection has gone, the process ends. One that is killed before leaves that socket; the next one of that name
   removes it: its lock is free.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from typing import Protocol

from dataplane.api.plane import DataPlane, Workers
from dataplane.api.server import Endpoints, draining_path
from dataplane.background import Background, tell_bugs
from dataplane.core.phase import Life, Phase, Turn
from dataplane.errors import Refused
from dataplane.ipc.systemd import notify, watchdog
from dataplane.ipc.takeover import Giver, Offer, giver_path
from dataplane.keeper import Kept
from dataplane.net.reactor import Reactor
from dataplane.net.sockopts import descriptor_limit
from dataplane.node.apply import Applier
from dataplane.node.initial import state_of
from dataplane.node.resolver import Resolver
from dataplane.node.snapshot_file import SnapshotStore
from dataplane.node.tls import used
from dataplane.options import Options
from dataplane.report.report import Report, Source
from dataplane.telemetry.events import Events, draw_instance
from dataplane.telemetry.line_writer import LineSink, LossWatch
from dataplane.telemetry.log import event_writer
from dataplane.tls.watch import Watch
from schemas.system.unix_socket import OwnSocket


class Role(Workers, Protocol):
    """What relays: this process itself, or its workers."""

    @property
    def applier(self) -> Applier:
        """What runs, and who changes it."""

    @property
    def source(self) -> Source:
        """Whose figures are told."""

    async def begin(self, endpoints: Endpoints) -> None:
        """Have everything run, and serve the API; with a StartError, whoever was to be taken over goes on."""

    def connections(self) -> int:
        """Return how many clients there are."""

    def sockets(self) -> list[tuple[str, socket.socket]]:
        """Return what is accepted from, with its addresses."""

    async def leave(self, *, last: bool) -> None:
        """Stop accepting: with `last` for good, once who is in the queues is served; else another process has the queues."""

    async def wait_empty(self) -> None:
        """Wait until the last connection has ended."""

    async def close(self) -> None:
        """Let go of everything; whatever brought us here, workers are left alone."""

    def kill(self) -> None:
        """End the workers now: this process does."""

    def hang_up(self) -> None:
        """Do what SIGHUP asks for."""

    def reopen(self) -> None:
        """Open the access log anew."""

    def lose_keeper(self) -> None:
        """Do what the end of the process means that the service manager knows, and that was killed."""


class Process:
    """One process, from its start to its end. The lock of its `own` socket is ours, unless another process is taken over."""

    role: Role
    """Known from `run` on."""

    def __init__(self, options: Options, log: LineSink, own: OwnSocket, group: asyncio.TaskGroup) -> None:
        self.options = options
        self.log = log
        self.own = own
        self.group = group
        self.background = Background(group)
        self.events = Events(event_writer(log, options.log_format), time.time, draw_instance())
        self.reactor = Reactor(asyncio.get_running_loop(), descriptor_limit())
        self.store = SnapshotStore(options.state_dir, options.name, self.events)
        self._leaving = asyncio.Event()
        self.life = Life(self._leaving.set)
        self._endpoints: Endpoints | None = None

    async def run(self, role: Role) -> None:
        """Serve until told to end, or taken over; then until the last connection has ended. StartError: it cannot."""
        self.role = role
        tell_bugs(self.events.emit)
        kept = Kept(asyncio.get_running_loop(), role.lose_keeper)
        self._handle_signals()
        self.reactor.start()
        LossWatch("log", self.log, self.reactor, self.events.emit).start()
        self._keep_up(role.applier)
        try:
            await self._live(kept)
        finally:
            self.events.close()
            self.background.cancel()
            if self._endpoints is not None:
                await self._endpoints.cleanup()
            await role.close()
            self.reactor.close()
        self._turn(Turn.END)
        self.events.emit("stopped", pid=os.getpid())

    def _keep_up(self, applier: Applier) -> None:
        """Begin what goes on beside relaying."""
        resolver = Resolver(applier.node)
        on_change = applier.on_change

        def changed() -> None:
            on_change()
            resolver.wake()

        applier.on_change = changed
        self.background.keep("checking backends", applier.node.prober.run)
        self.background.keep("looking up names", resolver.run)
        watch = Watch(lambda: used(applier.node.running.values()), self.events.emit)
        self.background.keep("renewing certificates", watch.run)
        self.background.keep("saving the snapshot", applier.keep_saved)

    async def _live(self, kept: Kept) -> None:
        options, role = self.options, self.role
        report = Report(options.name, self.life, role.applier, role.source)
        plane = DataPlane(role.applier, report, role, self.events)
        endpoints = self._endpoints = Endpoints(
            plane, self.own, options.api, options.metrics, options.credentials, beside=options.takeover
        )
        await role.begin(endpoints)
        self._turn(Turn.SERVE)
        giver = Giver(giver_path(options.runtime_dir, options.name), self, self.events)
        giving = self.background.begin("offering a takeover", giver.run)
        self.background.keep("the watchdog", watchdog)
        self.background.keep("showing that it lives", self.own.live)
        notify(f"READY=1\nMAINPID={kept.main_pid}")
        info = report.info()
        descriptors, clients = descriptor_limit(), self.reactor.accept_ceiling // 2
        self.events.emit(
            "started", **info, socket=str(self.own.path), descriptors=descriptors, clients_a_worker=clients
        )
        await self._leaving.wait()
        notify("STOPPING=1")
        if role.applier.refusal is None:
            giving.cancel()
            await self._stop_accepting()
        else:
            await giving  # another process has taken over
        away = OwnSocket(draining_path(options.runtime_dir, options.name, os.getpid()))
        await endpoints.move(away)
        if self.life.phase is Phase.DRAINING:
            kept.let_go()
        await role.wait_empty()

    async def _stop_accepting(self) -> None:
        applier = self.role.applier
        async with applier.lock:
            await applier.store.again()
            applier.refusal = Refused(503, "stopping", "the process is ending")
            await self.role.leave(last=True)

    # -- a takeover (ipc.takeover.Holder): nothing is changed from the offer to its end -----------------

    async def offer(self) -> Offer:
        """Offer everything that is listened on."""
        applier = self.role.applier
        await applier.lock.acquire()
        sockets = self.role.sockets()
        self.events.emit("takeover_begins", sockets=len(sockets))
        return state_of(applier), sockets

    def keep(self, cause: str) -> None:
        """Go on: nobody took over."""
        self.role.applier.lock.release()
        self.events.emit("takeover_failed", cause=cause)

    async def release(self) -> None:
        """Stop accepting; who waits in a queue is the successor's."""
        applier = self.role.applier
        applier.refusal = Refused(503, "handed_over", "another process has taken over; ask again")
        self._turn(Turn.RELEASE)
        await self.role.leave(last=False)
        self.own.unlock()
        self.events.emit("handed_over", connections=self.role.connections())
        applier.lock.release()

    # -- signals --------------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop, number)
        loop.add_signal_handler(signal.SIGHUP, self.role.hang_up)
        loop.add_signal_handler(signal.SIGUSR1, self.role.reopen)

    def stop(self, number: signal.Signals) -> None:
        """Do what a signal asks for: drain; at the second one, end at once."""
        if self._turn(Turn.STOP) is not Phase.ENDED:
            self.events.emit("stopping", signal=number.name, connections=self.role.connections())
            return
        self.events.emit("stopping_now", signal=number.name, connections=self.role.connections())
        if self._endpoints is not None:
            self._endpoints.abandon()
        self.role.kill()
        self.log.close()
        os._exit(1)

    def _turn(self, turn: Turn) -> Phase:
        return self.life.turn(turn, time.time())
