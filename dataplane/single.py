"""One data-plane process with one event loop: everything wired together, from start to drained."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

from dataplane.api.name_release import Kept, move_away
from dataplane.api.routes import DataPlane
from dataplane.api.server import Endpoints, draining_path
from dataplane.background import Background, tell_bugs
from dataplane.errors import Refused, StartError
from dataplane.ipc.systemd import inherited_sockets, notify, watchdog
from dataplane.ipc.takeover import Giver, giver_path
from dataplane.net.reactor import Reactor
from dataplane.net.sockopts import descriptor_limit
from dataplane.node.apply import Applier
from dataplane.node.gc_tuning import tune_collector
from dataplane.node.initial import load_initial, reread
from dataplane.node.listeners import OwnListeners
from dataplane.node.node import Node
from dataplane.node.resolver import Resolver
from dataplane.node.snapshot_file import SnapshotStore
from dataplane.node.takeover_state import Handover
from dataplane.report.reader import Reader
from dataplane.report.report import Report
from dataplane.telemetry.connection_log import Recording
from dataplane.telemetry.events import Events, draw_instance, rfc3339
from dataplane.telemetry.line_writer import LossWatch
from dataplane.telemetry.log import log_event
from schemas.system.unix_socket import OwnSocket

if TYPE_CHECKING:
    from dataplane.options import Options
    from dataplane.telemetry.line_writer import LineSink

__all__ = ["Process"]


class NoWorkers:
    """What there is of workers where there are none (dataplane.api.routes.Workers)."""

    async def restart(self) -> dict[str, Any]:
        """Refuse: what would be replaced is this process itself."""
        hint = "start its successor with `lb-dataplane --takeover`"
        raise Refused(409, "single_process", f"a single process has no workers to restart; {hint}")

    async def resize(self, count: int) -> dict[str, Any]:
        """Refuse."""
        hint = f"see lb-dataplane --takeover --workers {count}"
        raise Refused(409, "single_process", f"a single process has no workers; {hint}")


class Process:
    """A data plane of one process."""

    def __init__(self, options: Options, log: LineSink, own: OwnSocket, group: asyncio.TaskGroup) -> None:
        self._options = options
        self._log = log
        self._own = own
        self._background = Background(group)
        loop = asyncio.get_running_loop()
        self.events = Events(log_event, time.time, draw_instance())
        self.reactor = Reactor(loop, descriptor_limit())
        self.node = Node(self.reactor, self.events, random.SystemRandom())
        self.store = SnapshotStore(options.state_dir, options.name)
        self.listeners = OwnListeners(self.node, reuse_port=options.reuse_port)
        self.applier = Applier(self.node, self.store, self.listeners)
        try:
            draw = random.Random().random  # noqa: S311 - it decides what is logged
            self._recording = Recording(options.recording, options.name, draw, self.events.emit)
        except ValueError as error:
            raise StartError(f"OpenTelemetry: {error}") from error
        self.node.access_log = self._recording.record
        self._reader = Reader(self.node, self._dropped_lines, self._recording.spans)
        self._report = Report(options.name, self.applier, self._reader)
        self._plane = DataPlane(self.applier, self._report, self.node, NoWorkers(), self.events)
        self._resolver = Resolver(self.node)
        self.applier.on_change = self._resolver.wake
        self._stop = asyncio.Event()
        self._kept = Kept(self._on_loss)
        self._endpoints: Endpoints | None = None
        self._handed_over = False

    def _dropped_lines(self) -> int:
        return self._log.dropped + self._recording.dropped_lines

    # -- life -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until told to stop, or taken over; then give the name away, and drain.

        Raises:
            StartError: What the command line or the environment asks for cannot be had.
        """
        tell_bugs(self.events.emit)
        self._handle_signals()
        tune_collector()
        self.reactor.start()
        self._reader.outcomes.start()
        sinks = {"log": self._log, "access log": self._recording.sink}
        LossWatch(sinks, self.events.emit).start(self.reactor)
        keep = self._background.keep
        keep("checking backends", self.node.prober.run)
        keep("looking up names", self._resolver.run)
        keep("saving the snapshot", self.applier.keep_saved)
        self.listeners.new.inherit(inherited_sockets())
        options = self._options
        try:
            endpoints = self._endpoints = Endpoints(
                options.api, options.metrics, options.credentials, self.events.emit, beside=False
            )
            await load_initial(self.applier, self.store, self._options.config)
            endpoints.listen()
            await endpoints.serve(self._plane, self._own)
            self.events.emit("started", **self._report.info(), socket=str(self._own.path))
            giver = self._background.begin("offering a takeover", self._giver().run)
            keep("the watchdog", watchdog)
            keep("showing that it lives", self._own.live)
            notify(f"READY=1\nMAINPID={self._kept.main_pid}")
            await self._stop.wait()
            notify("STOPPING=1")
            if self._handed_over:
                await giver
            else:
                giver.cancel()
                await self._stop_accepting()
            away = OwnSocket(draining_path(options.runtime_dir, options.name, os.getpid()))
            await move_away(endpoints, self._plane, self._own, away, self.events.emit)
            if not self._handed_over:
                self._kept.let_go()
            await self.node.drain()
        finally:
            self.events.close()
            self._background.cancel()
            if self._endpoints is not None:
                await self._endpoints.cleanup()
            await self._recording.close()
            self.reactor.close()
        self.events.emit("stopped", pid=os.getpid())

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        loop.add_signal_handler(signal.SIGUSR1, self._recording.reopen)

    def _on_stop_signal(self, number: signal.Signals) -> None:
        if self._report.draining_since:
            self.events.emit("stopping_now", signal=number.name, connections=self.node.connections())
            if self._endpoints is not None:
                self._endpoints.abandon()
            self._log.close()
            os._exit(1)
        self._report.draining_since = rfc3339(time.time())
        self.events.emit("stopping", signal=number.name, connections=self.node.connections())
        self._stop.set()

    def _on_loss(self) -> None:
        """Do as if the signal had come that killed the process that the service manager knows."""
        if not self._report.draining_since:
            self._on_stop_signal(signal.SIGTERM)

    def _on_hangup(self) -> None:
        config = self._options.config
        if config is None:
            self.events.emit("reread", cause="SIGHUP, but there is no --config to read again")
        else:
            self._background.once("reading --config again", lambda: reread(self.applier, config))

    def _giver(self) -> Giver:
        """Return what hands over to a process with --takeover."""

        async def let_go(refusal: Refused) -> None:
            self.applier.refusal = refusal
            self.listeners.leave_all()
            self._report.draining_since = rfc3339(time.time())
            self._handed_over = True
            self._own.unlock()
            self.events.emit("handed_over", connections=self.node.connections())
            self._stop.set()

        def sockets() -> list[tuple[str, socket.socket]]:
            return [(one.address, one.sock) for one in self.node.listeners.values()]

        holder = Handover(self.applier, sockets, let_go)
        path = giver_path(self._options.runtime_dir, self._options.name)
        return Giver(path, holder, self.events)

    async def _stop_accepting(self) -> None:
        """Serve who is in the queues, and close them, so that the next process of this name can have the addresses."""
        async with self.applier.lock:
            await self.applier.saving.again()
            self.applier.refusal = Refused(503, "stopping", "the process is ending")
            self.listeners.close()
