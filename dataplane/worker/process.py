"""One worker of a supervisor: an event loop that accepts and relays, and does what its supervisor tells it.

It imports neither pydantic nor aiohttp nor structlog: what it is sent was validated already, and it serves no HTTP. So a worker
that has to be replaced is there in a fraction of a second.

Theory of operation:

1. The supervisor speaks through a socket pair (`Channel`). A change comes in two steps: `stage` prepares it, in
   slices between which the loop relays, and may fail; `commit` runs it and cannot.
2. Listening sockets come with `listen` and go with it. The supervisor holds a copy of each, so closing ours loses
   nobody who waits in its queue. Several workers may accept from one socket; whoever is first serves.
3. `drain` ends it in good order: by its answer no listening socket is left here, connections have until their drain
   timeout, and the last numbers go to the supervisor before the process ends.
4. If the supervisor dies, the channel ends. The worker goes on accepting: for as long as it takes until a new
   supervisor asks for the sockets (`ipc.takeover`), at most ORPHAN_S. Then it drains and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import uvloop

from dataplane.background import Background, first_of, tell_bugs
from dataplane.core.spec import OperatorState
from dataplane.ipc.channel import Channel
from dataplane.ipc.messages import Columns, Found, PackedService, Welcome, unpack
from dataplane.ipc.shared_counters import CounterBoard
from dataplane.ipc.takeover import Giver, Offer, giver_path
from dataplane.net.reactor import Reactor
from dataplane.net.sockopts import descriptor_limit
from dataplane.node.change import Changer, Draft
from dataplane.node.gc_tuning import tune_collector
from dataplane.report.metrics import Metrics
from dataplane.report.status import Reporter
from dataplane.telemetry.connection_log import Recording
from dataplane.telemetry.events import Events, rfc3339
from dataplane.telemetry.line_writer import LineSink
from dataplane.telemetry.lost_lines import LossWatch
from dataplane.worker.board import Board
from dataplane.worker.node import HeldDoors, WorkerNode

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Worker", "main"]

ORPHAN_S: Final = 5.0
"""How long a worker without a supervisor accepts, if no new supervisor asks for its sockets."""
SLICE: Final = 250
FORWARDED: Final = frozenset(
    {
        "access_log_not_reopened",
        "access_log_reopened",
        "backend_ejected",
        "backend_reinstated",
        "connections_moved",
        "ejection_refused",
        "local_error",
        "log_lines_lost",
        "log_written_again",
        "spans_lost",
        "unhandled",
        "worker_terminated",
    }
)
"""What only a worker can know; everything else its supervisor tells, once for all."""


@dataclass(frozen=True, slots=True)
class _Running:
    """What runs, as metrics name it."""

    generation: int = 0
    hash: str = ""


class Worker:
    """One worker; `answer` and `notice` are what its supervisor may ask (dataplane.ipc.channel.Handler)."""

    def __init__(self, sock: socket.socket) -> None:
        self._channel = Channel(sock, self)
        self.events = Events(self._tell, time.time)
        self.snapshot = _Running()
        self.saved = True  # or not: that is the supervisor's to tell
        self._next: tuple[Draft, _Running, Columns] | None = None
        self._begun = asyncio.Event()
        self._stop = asyncio.Event()
        self._log = LineSink(2)
        self._recording: Recording | None = None
        self._orphan: Callable[..., None] | None = None
        """Writes events of its own: its supervisor has died."""
        self._terminated = False

    async def answer(self, kind: str, body: Any, sockets: list[int], part: Callable[[Any], None]) -> Any:
        """Do what the supervisor asks for."""
        result: Any = None
        match kind:
            case "welcome":
                result = self._begin(body, sockets[0])
            case "stage":
                await self._stage(*body)
            case "commit":
                await self._commit(body)
            case "listen" | "meet" | "drain":
                self._change_sockets(kind, body, sockets)
            case "patch":
                await self._patch(*body)
            case "report":
                result = await self._report(part)
            case "explain":
                result = self._explain(*body)
            case "metrics":
                await self._tell_metrics(part)
            case _:
                raise AssertionError(kind)  # both ends are one version of this program
        return result

    def _change_sockets(self, kind: str, body: Any, sockets: list[int]) -> None:
        if kind == "listen":
            self._doors.take(body, sockets)
        elif kind == "meet":
            self._node.siblings.meet(body, sockets)
        else:
            self._drain(last=body)

    def notice(self, kind: str, body: Any) -> None:
        """Take note of what wants no answer."""
        if kind == "drop":
            self._doors.drop(body)
        elif kind == "judge":
            self._node.judge(body)
        elif kind == "put":
            self._node.whereabouts.take(body)
        elif kind == "reopen":
            self._reopen()
        elif kind == "abandon":
            self._next = None
            self._node.arm()
        elif kind == "arm":
            self._node.arm()
        elif kind == "drain":  # from a supervisor of an older version, which waits for no answer
            self._drain(last=body)

    # -- changes --------------------------------------------------------------------------------------

    def _begin(self, welcome: Welcome, memory: int) -> int:
        self._welcome = welcome
        board = Board(CounterBoard(welcome.rows, memory), welcome.row)
        self._reactor = Reactor(asyncio.get_running_loop(), descriptor_limit())
        self._node = WorkerNode(self._reactor, self.events, random.SystemRandom(), board)
        self._doors = HeldDoors(self._node)
        self._changer = Changer(self._node)
        self._reporter = Reporter(self._node, time.time)
        draw = random.Random().random  # noqa: S311 - it decides what is logged
        self._recording = Recording(welcome.settings.recording, welcome.settings.name, draw, self.events.emit)
        self._node.access_log = self._recording.record
        self._metrics = Metrics(self._node, self, self._dropped_lines, time.monotonic, self._recording.spans)
        tune_collector()
        self._reactor.start()
        self._reporter.outcomes.start()
        LossWatch({"access log": self._recording.sink}, self.events.emit).start(self._reactor)
        self._node.start_refreshing()
        self._begun.set()
        return os.getpid()

    async def _stage(
        self, generation: int, digest: str, services: list[PackedService], columns: Columns
    ) -> None:
        specs = [await unpack(service) for service in services]
        self._node.parts.columns = columns  # before backends are made: they dial only where the others see it
        self._next = (await self._changer.prepare(specs), _Running(generation, digest), columns)
        self._node.disarm({spec.name for spec in specs if spec.balance_workers})

    async def _commit(self, verdicts: list[Found]) -> None:
        assert self._next is not None  # noqa: S101 - the supervisor stages first
        (draft, self.snapshot, columns), self._next = self._next, None
        self._doors.empty_inboxes()  # every worker has staged this: nobody sends clients of what goes any more
        await self._changer.swap(draft, self._doors)
        self._node.count_in(columns)
        self._node.judge(verdicts)

    async def _patch(self, service: str, backend_id: str, state: str, weight: int) -> None:
        running = self._node.running[service]
        backend = running.service.backends[backend_id]
        effective = replace(backend.spec, state=OperatorState(state), weight=weight)
        running.configured[backend_id] = effective
        await self._changer.reweigh(running, backend, effective)

    def _reopen(self) -> None:
        if self._recording is not None:
            self._recording.reopen()

    # -- answers --------------------------------------------------------------------------------------

    async def _report(self, part: Callable[[Any], None]) -> tuple[int, str, int]:
        """Describe every service: first all but its backends, then those, in slices."""
        node = self._node
        for running in [*node.leaving.values(), *node.running.values()]:
            status: Any = await self._reporter.service(running)
            backends = status.pop("backends")
            part((running.service.name, status, []))
            for start in range(0, len(backends), SLICE):
                part((running.service.name, None, backends[start : start + SLICE]))
                await asyncio.sleep(0)
        return self.snapshot.generation, self.snapshot.hash, node.connections()

    async def _tell_metrics(self, part: Callable[[Any], None]) -> None:
        for families in self._metrics.parts():
            if families:
                part(families)
            await asyncio.sleep(0)

    def _explain(self, service: str, client: str) -> Any:
        return self._reporter.explain(self._node.running[service], client)

    def _dropped_lines(self) -> int:
        return self._log.dropped + (self._recording.dropped_lines if self._recording else 0)

    def _tell(self, kind: str, **fields: Any) -> None:
        if self._orphan:
            self._orphan(kind, worker=self._welcome.index, **fields)
        elif kind in FORWARDED:
            self._channel.send("event", (kind, fields))

    # -- life -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until told to drain, or until the supervisor has died, and the last connection has ended."""
        loop = asyncio.get_running_loop()
        # A terminal's ^C reaches the whole group; the supervisor decides what it means for its workers.
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        loop.add_signal_handler(signal.SIGTERM, self._on_terminate)
        loop.add_signal_handler(signal.SIGUSR1, self._reopen)
        tell_bugs(self._tell)
        async with asyncio.TaskGroup() as group:
            Background(group).once("listening to the supervisor", self._channel.run)
            await first_of(self._channel.closed, self._stop)
            if self._begun.is_set():
                await self._end()
            self._channel.close()
        self._log.close()

    async def _end(self) -> None:
        """Drain; a worker without a supervisor serves a while before that."""
        if not self._stop.is_set():
            await self._serve_as_orphan()
            self._drain(last=False)
        await self._node.drain()
        if self._recording is not None:
            await self._recording.close()
        if not self._channel.closed.is_set():
            parts: list[Any] = []
            await self._report(parts.append)
            self._channel.send("farewell", (parts, [one for some in self._metrics.parts() for one in some]))
            await self._channel.flush(1.0)

    def _drain(self, *, last: bool) -> None:
        """Accept nothing more.

        Args:
            last: The listening sockets are being closed for good, so whoever is in their queues is served first.
        """
        if last:
            self._doors.shut({})
        else:
            self._doors.leave_all()
        self._doors.leave_inboxes()
        self._stop.set()

    def _on_terminate(self) -> None:
        """Ask for a successor, so that nobody waits at a socket of ours; the second time, end without one."""
        if not self._begun.is_set() or self._channel.closed.is_set():
            self._stop.set()
        elif self._terminated:
            self._drain(last=False)
        self._terminated = True
        self._tell("worker_terminated", pid=os.getpid())

    # -- without a supervisor -------------------------------------------------------------------------

    async def _serve_as_orphan(self) -> None:
        self._orphan = self._own_log()
        self._node.siblings.part()
        self.events.emit("orphaned", pid=os.getpid(), seconds=ORPHAN_S)
        path = giver_path(self._welcome.settings.runtime_dir, self._welcome.settings.name, os.getpid())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ORPHAN_S):
                await Giver(path, self, self.events).run()

    def _own_log(self) -> Callable[..., None]:
        """Return what writes an event: its supervisor did that, and a worker has no formatter.

        To load one takes a tenth of a second, in which nobody is served, and descriptors, of which there may be none:
        that is only for people who asked for text.
        """
        if self._welcome.settings.log_format == "text":
            with contextlib.suppress(OSError, ImportError):
                from dataplane.telemetry.log import configure_log, log_event  # noqa: PLC0415 - see above

                configure_log(self._log, form="text", fd=2)
                return log_event

        def write(kind: str, **fields: Any) -> None:
            event = {"event": kind, "level": "warning", "at": rfc3339(time.time()), **fields}
            self._log.write(json.dumps(event).encode() + b"\n")

        return write

    async def offer(self) -> Offer:
        """Offer every socket that is accepted from (dataplane.ipc.takeover.Holder)."""
        listeners = list(self._node.listeners.values())
        return Offer({}, [one.address for one in listeners], [one.sock for one in listeners])

    def keep(self, cause: str) -> None:
        """Go on."""
        self.events.emit("takeover_failed", cause=cause)

    async def release(self) -> None:
        """Stop accepting."""
        self._doors.leave_all()


def main() -> None:
    """Run a worker; the only argument is the descriptor of its supervisor's channel."""
    uvloop.run(_main(socket.socket(fileno=int(sys.argv[1]))))


async def _main(sock: socket.socket) -> None:
    await Worker(sock).run()
