"""What single parts of the connection path cost: the real objects, after a real connection, called many times.

`python -m tools.bench.parts PART` prints microseconds of CPU per connection, in a process of its own so that nothing
else is counted.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import uvloop

from dataplane.core.selection import Selection
from dataplane.net.backend import Backend
from dataplane.net.listener import Listener, open_listener
from dataplane.net.reactor import Reactor, Wheel
from dataplane.net.service import Service
from dataplane.node.slices import tune_collector
from dataplane.node.specs import service_spec
from dataplane.telemetry.connection_log import AccessLog, Wanted
from dataplane.telemetry.line_writer import LINGER_S, LineSink
from schemas.snapshot import parse_snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dataplane.core.outlier import Evidence
    from dataplane.core.reasons import CloseReason
    from dataplane.net.flow import Flow
    from dataplane.net.leg import Leg

_TIMES: Final = 40_000
"""Fewer than the lines that the log's queue takes, so that none is dropped."""
_OTHERS: Final = 10_000
"""Connections that wait in the wheel at the same time."""
_DESCRIPTORS: Final = 1024
_ANSWER_S: Final = 10.0


class Ended:
    """A connection that came, was relayed and went, and the service that it belonged to."""

    def __init__(self) -> None:
        self.flow: Flow | None = None
        self.reason: CloseReason | None = None
        self.server: Leg | None = None
        self.backend: Backend | None = None
        self.service: Service | None = None
        self._over = asyncio.Event()

    def __call__(self, flow: Flow, reason: CloseReason, server: Leg | None) -> None:
        """Take note of the end, in the place of the access log."""
        self.flow, self.reason, self.server, self.backend = flow, reason, server, flow.backend
        self._over.set()

    async def happen(self) -> None:
        """Let it come and go."""
        reactor = Reactor(asyncio.get_running_loop(), _DESCRIPTORS)
        echo = await asyncio.start_server(_echo, "127.0.0.1", 0)
        service = self.service = _service(reactor, "{}:{}".format(*echo.sockets[0].getsockname()))
        service.access_log = self
        sock = open_listener("127.0.0.1:0", reuse_port=False)
        host, port = sock.getsockname()
        listener = Listener(reactor, f"{host}:{port}", sock, service)
        listener.start()
        reactor.start()
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"sixteen bytes...")
            await reader.readexactly(16)
            writer.close()
            await writer.wait_closed()
            await self._over.wait()
        listener.close()
        reactor.close()
        echo.close()


class _Nobody:
    """Is told what a service meets, and does nothing about it."""

    def backend_failed(self, backend: Backend, evidence: Evidence, cause: str) -> None:
        """Do nothing."""

    def backend_spoke(self, backend: Backend) -> None:
        """Do nothing."""

    def local_error(self, code: int) -> None:
        """Do nothing."""

    def drained(self) -> None:
        """Do nothing."""


class _Waiting:
    """Another connection in the wheel."""

    __slots__ = ("tick",)

    def __init__(self) -> None:
        self.tick = 0

    def on_timer(self, now: float) -> None:
        """Do nothing."""


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1024):
        writer.write(data)
    writer.close()


def _service(reactor: Reactor, backend: str) -> Service:
    options = {"listen": "127.0.0.1:1", "pool": {"mode": "off"}, "backends": [backend]}
    snapshot = parse_snapshot({"version": 1, "generation": 1, "services": {"parts": options}})
    spec = service_spec("parts", snapshot.services["parts"])
    service = Service(reactor, spec, _Nobody())
    for one in spec.backends:
        service.backends[one.id] = Backend(reactor, one, spec)
    service.selection = Selection.build(
        [one.stand(1.0) for one in service.backends.values()],
        mode=spec.mode,
        panic=spec.panic,
        random=random.Random(1).random,
        tables={},
        previous=None,
    )
    return service


def _timed(work: Callable[[], None]) -> float:
    """Return microseconds of CPU, of all threads, for one of `_TIMES` that `work` does."""
    start = time.process_time()
    work()
    return (time.process_time() - start) / _TIMES * 1e6


def _timer(ended: Ended) -> float:
    """Put a connection's deadline into the wheel and take it out, among 10,000 others."""
    flow, now = ended.flow, time.monotonic()
    assert flow is not None  # noqa: S101 - it has ended
    wheel = Wheel(now, lambda *_: None)
    others = [_Waiting() for _ in range(_OTHERS)]
    for index, one in enumerate(others):
        wheel.at(one, now + index % 600)
    flow.tick = 0

    def work() -> None:
        move, cancel = wheel.move, wheel.cancel
        for number in range(_TIMES):
            move(flow, now + 15 + number * 1e-4)
            cancel(flow)

    return _timed(work)


def _accounts(ended: Ended) -> float:
    """Settle the accounts of a connection: counters, histograms, places; what metrics and status read."""
    flow, reason, server, backend = ended.flow, ended.reason, ended.server, ended.backend
    service = ended.service
    assert flow is not None and reason is not None and service is not None  # noqa: S101, PT018 - it has ended
    service.access_log = None

    def work() -> None:
        on_end = service.on_end
        for _ in range(_TIMES):
            flow.backend = backend
            on_end(flow, reason, server)

    def nothing() -> None:
        for _ in range(_TIMES):
            flow.backend = backend

    return _timed(work) - _timed(nothing)


def _log(ended: Ended) -> float:
    """Make the line of the access log, and write it, the writing thread's part included."""
    flow, reason, server, backend = ended.flow, ended.reason, ended.server, ended.backend
    assert flow is not None and reason is not None  # noqa: S101, PT018 - it has ended
    flow.backend = backend
    with tempfile.TemporaryFile() as file:
        sink = LineSink(os.dup(file.fileno()), linger_s=LINGER_S)
    log = AccessLog(sink, Wanted(), random.Random(1).random)

    def work() -> None:
        for _ in range(_TIMES):
            log(flow, reason, server)
        sink.close(_ANSWER_S)

    microseconds = _timed(work)
    if sink.dropped:
        sys.exit(f"{sink.dropped} lines were dropped")
    return microseconds


def _pick(ended: Ended) -> float:
    """Pick a backend in turn."""
    service = ended.service
    assert service is not None  # noqa: S101 - it has ended
    pick = service.selection.pick

    def work() -> None:
        for _ in range(_TIMES):
            pick(0, ())

    return _timed(work)


PARTS: Final[Mapping[str, Callable[[Ended], Any]]] = MappingProxyType(
    {"timer": _timer, "accounts": _accounts, "pick": _pick, "log": _log}
)


def main() -> None:
    """Print what the part costs that the command line names."""
    part = PARTS[sys.argv[1]]
    ended = Ended()
    uvloop.run(ended.happen())
    tune_collector()
    print(part(ended))


if __name__ == "__main__":
    main()
