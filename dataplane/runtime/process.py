"""One data-plane process with one event loop: everything wired together, from start to drained."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import uvloop

from dataplane.core.reasons import CloseReason
from dataplane.net.listener import BindError, open_listener
from dataplane.net.reactor import Reactor
from dataplane.net.sockopts import descriptor_limit
from dataplane.runtime.accesslog import AccessLog
from dataplane.runtime.api import Api, allowed_hosts
from dataplane.runtime.apply import Applier, Refused
from dataplane.runtime.collector import tune_collector
from dataplane.runtime.doors import OwnDoors
from dataplane.runtime.endpoint import InUse, OwnSocket, serve
from dataplane.runtime.events import Events
from dataplane.runtime.logs import configure_log, log_event
from dataplane.runtime.metrics import Metrics
from dataplane.runtime.node import Node
from dataplane.runtime.resolver import Resolver
from dataplane.runtime.sink import LineSink
from dataplane.runtime.startup import StartError, load_initial, reread
from dataplane.runtime.status import Reporter
from dataplane.runtime.store import SnapshotStore

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from pathlib import Path

    from aiohttp import web

    from schemas.api import Applied, BackendPatch, Explanation, Info, Planned
    from schemas.status import Status

__all__ = ["Options", "run"]

VERSION: Final = version("livelb")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    name: str
    runtime_dir: Path
    state_dir: Path
    reuse_port: bool
    config: Path | None
    log_format: str
    access_log: str
    api: str | None
    token: str | None
    tls: ssl.SSLContext | None


class Process:
    """A data plane of one process (dataplane.runtime.api.DataPlane)."""

    def __init__(self, options: Options, log: LineSink) -> None:
        self._options = options
        self._log = log
        self._started_at = time.monotonic()
        loop = asyncio.get_running_loop()
        self.events = Events(log_event, time.time)
        self.reactor = Reactor(loop, descriptor_limit())
        self.node = Node(self.reactor, self.events, random.SystemRandom())
        self.store = SnapshotStore(options.state_dir, options.name)
        self.doors = OwnDoors(self.node, reuse_port=options.reuse_port)
        self.applier = Applier(self.node, self.store, self.doors)
        self.reporter = Reporter(self.node, time.time)
        self._access_sink = self._open_access_log()
        self._metrics = Metrics(self.node, self.applier, self._dropped_lines, time.monotonic)
        self._resolver = Resolver(self.node)
        self.applier.on_change = self._resolver.wake
        self._stop = asyncio.Event()
        self._stopping = False

    # -- the API --------------------------------------------------------------------------------------

    def info(self) -> Info:
        """Say who answers, and what it runs."""
        return {
            "name": self._options.name,
            "pid": os.getpid(),
            "version": VERSION,
            "workers": 1,
            "uptime_s": round(time.monotonic() - self._started_at, 3),
            "generation": self.applier.snapshot.generation,
            "hash": self.applier.snapshot.hash,
        }

    async def apply(self, data: object, *, if_match: str | None) -> Applied:
        """Run a snapshot."""
        return await self.applier.apply(data, if_match=if_match)

    async def plan(self, data: object, *, if_match: str | None) -> Planned:
        """Say what running a snapshot would change."""
        return await self.applier.plan(data, if_match=if_match)

    def snapshot(self) -> Iterator[str]:
        """Yield what runs, as pieces of JSON."""
        return self.applier.snapshot.text()

    async def status(self) -> Status:
        """Describe everything."""
        info, services = self.info(), await self.reporter.services()
        active = sum(service["active"] for service in services.values())
        return {
            "name": info["name"],
            "pid": info["pid"],
            "version": info["version"],
            "generation": info["generation"],
            "hash": info["hash"],
            "uptime_s": info["uptime_s"],
            "workers": [
                {
                    "index": 0,
                    "pid": info["pid"],
                    "generation": info["generation"],
                    "hash": info["hash"],
                    "active": active,
                }
            ],
            "services": services,
        }

    async def patch(self, service: str, backend: str, patch: BackendPatch) -> dict[str, Any]:
        """Override a backend."""
        return await self.applier.patch(service, backend, patch)

    async def explain(self, service: str, client: str) -> Explanation:
        """Say what a client would get."""
        running = self.node.running.get(service)
        if running is None:
            raise Refused(404, "no_such_service", f"there is no service {service}")
        try:
            return self.reporter.explain(running, client)
        except ValueError as error:
            raise Refused(422, "invalid", f"client: {error}") from error

    async def metrics(self) -> bytes:
        """Return Prometheus text."""
        return self._metrics.text()

    def not_ready(self) -> str | None:
        """Return why this node should get no traffic."""
        if self._stopping:
            return "the process is ending"
        if not self.applier.snapshot.generation:
            return "generation 0: waiting for a snapshot"
        paused = [listener.address for listener in self.node.listeners.values() if listener.paused]
        return f"accepting is paused on {', '.join(paused)}: out of descriptors" if paused else None

    def _dropped_lines(self) -> int:
        return self._log.dropped + (self._access_sink.dropped if self._access_sink else 0)

    def _open_access_log(self) -> LineSink | None:
        target = self._options.access_log
        if target == "off":
            return None
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        sink = LineSink(1 if target == "-" else os.open(target, flags, 0o640))
        self.node.access_log = AccessLog(sink)
        return sink

    # -- life -----------------------------------------------------------------------------------------

    async def run(self, own: OwnSocket) -> None:
        """Serve until told to stop, then drain.

        Raises:
            StartError: What the command line or the environment asks for cannot be had.
        """
        self._handle_signals()
        tune_collector()
        self.reactor.start()
        tasks = [asyncio.create_task(self.node.prober.run()), asyncio.create_task(self._resolver.run())]
        runners: list[web.AppRunner] = []
        try:
            await load_initial(self.applier, self.store, self._options.config)
            runners = await self._serve(own)
            self.events.emit("started", **self.info(), socket=str(own.path))
            await self._stop.wait()
            await self._drain()
        finally:
            self.events.close()
            for task in tasks:
                task.cancel()
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            for runner in runners:
                await runner.cleanup()
            self.events.emit("stopped", pid=os.getpid())
            if self._access_sink is not None:
                self._access_sink.close()
            self.reactor.close()

    async def _serve(self, own: OwnSocket) -> list[web.AppRunner]:
        runners = [await serve(Api(self).application(), own.listen())]
        options = self._options
        if options.api is not None:
            try:
                sock = open_listener(options.api, reuse_port=False)
            except BindError as error:
                raise StartError(str(error)) from error
            api = Api(self, token=options.token, hosts=allowed_hosts(options.api))
            runners.append(await serve(api.application(), sock, options.tls))
        return runners

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)

    def _on_stop_signal(self, number: signal.Signals) -> None:
        if self._stopping:
            self.events.emit("stopping_now", signal=number.name, connections=self._connections())
            self._log.close()
            os._exit(1)
        self._stopping = True
        self.events.emit("stopping", signal=number.name, connections=self._connections())
        self._stop.set()

    def _on_hangup(self) -> None:
        if self._options.config is None:
            self.events.emit("reread", cause="SIGHUP, but there is no --config to read again")
            return
        task = asyncio.get_running_loop().create_task(reread(self.applier, self._options.config))
        self._reread = task  # a task that nobody holds may be collected

    def _connections(self) -> int:
        node = self.node
        return sum(len(one.service.flows) for one in [*node.running.values(), *node.leaving.values()])

    async def _drain(self) -> None:
        """Stop accepting, and let connections finish until their drain timeout."""
        node = self.node
        for listener in list(node.listeners.values()):
            listener.close()
        node.listeners.clear()
        for running in [*node.running.values(), *node.leaving.values()]:
            service = running.service
            service.draining = True
            for backend in service.backends.values():
                backend.usable = backend.usable and bool(service.flows)
            node.drain(service.flows, service, CloseReason.SHUTDOWN)
        while self._connections():
            node.idle.clear()
            await node.idle.wait()


def run(options: Options) -> int:
    """Run a data plane until it ends; return the exit code."""
    log = LineSink(2)
    configure_log(log, form=options.log_format, fd=2)
    own = OwnSocket(options.runtime_dir / f"dataplane-{options.name}.sock")
    try:
        own.acquire()
        uvloop.run(_main(options, log, own))
    except (InUse, StartError, OSError) as error:
        log.close()
        print(f"lb-dataplane: {error}", file=sys.stderr)  # noqa: T201 - the command's last word
        return error.exit_code if isinstance(error, StartError) else 1
    finally:
        own.close()
    log.close()
    return 0


async def _main(options: Options, log: LineSink, own: OwnSocket) -> None:
    await Process(options, log).run(own)
