"""One worker of a supervisor: an event loop that accepts and relays, and does what its supervisor tells it.

It imports neither pydantic nor aiohttp nor structlog: what it is sent was validated already, and it serves no HTTP. So a worker
that has to be replaced is there in a fraction of a second.

Theory of operation:

1. The supervisor speaks through a socket pair (`Channel`). It says welcome, and from then on what `Requests` can do.
2. The supervisor holds a copy of each listening socket, so closing ours loses nobody who waits in its queue. Several
   workers may accept from one socket; whoever is first serves.
3. `drain` ends it in good order: by its answer no listening socket is left here, connections have until their drain
   timeout, and the last numbers go to the supervisor before the process ends.
4. If the supervisor dies, the channel ends. The worker goes on accepting: for as long as it takes until a new
   supervisor asks for the sockets (`ipc.takeover`), at most ORPHAN_S. Then it drains and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from dataplane.background import Background, first_of, tell_bugs
from dataplane.core.phase import Life, Phase, Turn
from dataplane.ipc.channel import Channel
from dataplane.ipc.takeover import giver_path
from dataplane.node.tls import used
from dataplane.telemetry.events import Events
from dataplane.telemetry.line_writer import LineSink
from dataplane.telemetry.log import event_writer
from dataplane.tls.watch import Used, Watch
from dataplane.worker.requests import Requests

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


class Worker:
    """One worker; `answer` and `notice` are what its supervisor says (`ipc.channel`)."""

    def __init__(self, sock: socket.socket) -> None:
        self._channel = Channel(sock, self.answer, self.notice)
        self._events = Events(self._tell, time.time)
        self._stop = asyncio.Event()
        self._life = Life(self._stop.set)
        self._log = LineSink(2)
        self._requests: Requests | None = None
        """None until its supervisor has said welcome."""
        self._write: Callable[..., None] | None = None
        """Writes events; None: its supervisor does."""
        self._terminated = False

    async def answer(self, kind: str, body: Any, sockets: list[int], part: Callable[[Any], None]) -> Any:
        """Do what the supervisor asks for."""
        if kind == "welcome":
            self._requests = Requests(body, sockets[0], self._events, self._log)
            self._life.turn(Turn.SERVE, time.time())
            return self._requests.start()
        assert self._requests is not None  # noqa: S101 - the supervisor says welcome first
        if kind == "drain":
            return self._drain(self._requests, last=body)
        return await self._requests.answer(kind, body, sockets, part)

    def notice(self, kind: str, body: Any) -> None:
        """Take note of what wants no answer."""
        if self._requests is None:
            return  # an order to open the access log anew, which is about to be opened
        if kind == "drain":  # from a supervisor of an older version, which waits for no answer
            self._drain(self._requests, last=body)
        else:
            self._requests.notice(kind, body)

    def _drain(self, requests: Requests, *, last: bool) -> None:
        requests.leave(last=last)
        if self._life.phase is not Phase.DRAINING:
            self._life.turn(Turn.STOP, time.time())

    def _tell(self, kind: str, **fields: Any) -> None:
        if self._write and self._requests:
            self._write(kind, worker=self._requests.welcome.index, **fields)
        elif kind in FORWARDED:
            self._channel.send("event", (kind, fields))

    async def run(self) -> None:
        """Work until told to drain, or until the supervisor has died, and the last connection has ended."""
        loop = asyncio.get_running_loop()
        # A terminal's ^C reaches the whole group; the supervisor decides what it means for its workers.
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        loop.add_signal_handler(signal.SIGTERM, self._on_terminate)
        loop.add_signal_handler(signal.SIGUSR1, self.notice, "reopen", None)
        tell_bugs(self._tell)
        async with asyncio.TaskGroup() as group:
            Background(group).once("listening to the supervisor", self._channel.run)
            renewing = Background(group)
            renewing.keep("renewing certificates", Watch(self._tls, self._tell).run)
            await first_of(self._channel.closed, self._stop)
            if self._requests is not None:
                await self._end(self._requests)
            renewing.cancel()
            self._channel.close()
        self._life.turn(Turn.END, time.time())
        self._log.close()

    async def _end(self, requests: Requests) -> None:
        """Drain; a worker without a supervisor serves a while before that."""
        if self._life.phase is Phase.SERVING:
            settings = requests.welcome.settings
            self._write = _event_writer(self._log, settings.log_format)
            await requests.serve_alone(giver_path(settings.runtime_dir, settings.name, os.getpid()))
            self._drain(requests, last=False)
        await requests.node.drain()
        await requests.recording.close()
        if not self._channel.closed.is_set():
            self._channel.send("farewell", requests.final_figures())
            await self._channel.flush(1.0)

    def _tls(self) -> list[Used]:
        return [] if self._requests is None else used(self._requests.node.running.values())

    def _on_terminate(self) -> None:
        """Ask for a successor, so that nobody waits at a socket of ours; the second time, end without one."""
        if self._requests is None:
            if self._life.phase is Phase.STARTING:
                self._life.turn(Turn.STOP, time.time())
        elif self._terminated and not self._channel.closed.is_set():
            self._drain(self._requests, last=False)
        self._terminated = True
        self._tell("worker_terminated", pid=os.getpid())


def _event_writer(log: LineSink, form: str) -> Callable[..., None]:
    """Return what writes events: its supervisor did that. Where a formatter cannot be loaded, out of descriptors, JSON is right."""
    with contextlib.suppress(OSError, ImportError):
        return event_writer(log, form)
    return event_writer(log, "json")
