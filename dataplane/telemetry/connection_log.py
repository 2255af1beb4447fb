"""What is kept of each connection that ended: the access log and spans, both wired to what a `Service` calls."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as quote
from typing import TYPE_CHECKING, Final

from dataplane.core.reasons import ENDED_WELL, CloseReason
from dataplane.net.flow import Flow
from dataplane.net.leg import Leg
from dataplane.net.reactor import Reactor
from dataplane.telemetry.events import rfc3339
from dataplane.telemetry.line_writer import LineSink, LossWatch, open_sink
from dataplane.telemetry.tls_facts import tls_fields

if TYPE_CHECKING:
    from dataplane.telemetry.tracing import Tracing

_ENDS: Final = {
    reason: f'"reason": {quote(reason.value)}, "source": {quote(reason.source.value)}'
    for reason in CloseReason
}

_MICROS: Final = 1_000_000
_UNIX: Final = '"unix"'
_TIMES: Final = '"queue_ms": %.3f, "connect_ms": %.3f, "first_byte_ms": %.3f, "total_ms": %.3f'
_SOME_TIMES: Final = '"queue_ms": %.3f, "connect_ms": %s, "first_byte_ms": %s, "total_ms": %.3f'


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which connections get a line: those that pass the filters, and of these a sample."""

    errors: bool = False
    """Those that did not end well, and those of `slower_than_s`."""
    slower_than_s: float = 0.0
    """Those who waited longer (`waited_s`), and those of `errors`; 0: no such filter."""
    sample: float | None = None
    """The share of those that ended well, 0 < sample <= 1, which each line then carries; None: all."""
    sample_errors: bool = False
    """Sample those that did not end well, too; else all of them are kept."""


def waited_s(flow: Flow, now: float) -> float:
    """Return how long a client waited: queue, connect and the backend's first byte.

    If the backend never answered: to the end for a client that had sent something, else until it was connected. One that
    never got a connection waited to the end.
    """
    until = flow.first_at
    if not until:
        until = now if flow.client.received or not flow.connected_at else flow.connected_at
    return until - flow.started_at


class AccessLog:
    """Makes lines of flows that have ended, into a sink; `draw` returns a random number, 0 <= x < 1, for a sample.

    A line is put together by hand: `json.dumps` of a dict took four times as long. And it is done here rather than in the
    sink's thread, which would have to take the interpreter's lock from the relay for it.
    """

    def __init__(
        self,
        sink: LineSink,
        wanted: Wanted,
        draw: Callable[[], float],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._sink = sink
        self._draw = draw
        self._wall_clock = wall_clock
        self._errors, self._slower_than_s = wanted.errors, wanted.slower_than_s
        self._sample, self._sample_errors = wanted.sample, wanted.sample_errors
        self._filters = wanted.errors or wanted.slower_than_s > 0
        self._second = -1
        self._stamp = ""

    def __call__(self, flow: Flow, reason: CloseReason, server: Leg | None) -> None:
        """Write one line, if it is wanted. Times are milliseconds; null where the flow did not get so far."""
        sampled = ""
        well = reason in ENDED_WELL
        sample = self._sample
        if sample is not None:
            if not well and not self._sample_errors:
                sampled = ', "sample": 1.0'
            elif self._draw() < sample:
                sampled = f', "sample": {sample}'
            else:
                return
        now = flow.reactor.clock()
        if self._filters and not (
            (self._errors and not well) or (self._slower_than_s and waited_s(flow, now) > self._slower_than_s)
        ):
            return
        self._sink.write(self._line(flow, reason, server, now, sampled))

    def _line(self, flow: Flow, reason: CloseReason, server: Leg | None, now: float, sampled: str) -> bytes:
        started, connected, first = flow.started_at, flow.connected_at, flow.first_at
        backend, address, tried = flow.backend, flow.address, flow.tried
        if backend is None and tried:
            backend = tried[-1]
        queued_s, total_s = flow.queued_s, now - started
        connect_s = connected - started - queued_s
        # One `%` for all four takes half the time of an f-string, and `"%.3f"` is what `round` does, too.
        if first and connect_s >= 0 and first >= connected:
            times = _TIMES % (queued_s * 1000, connect_s * 1000, (first - connected) * 1000, total_s * 1000)
        else:
            connect_ms = _ms(connect_s) if connected else "null"
            first_ms = _ms(first - connected) if first else "null"
            times = _SOME_TIMES % (queued_s * 1000, connect_ms, first_ms, total_s * 1000)
        if (
            flow.client.tls is not None
            or flow.hello is not None
            or (server is not None and server.tls is not None)
        ):
            sampled = tls_fields(flow, server) + sampled
        return (
            f'{{"at": "{self._at(self._wall_clock() - total_s)}", "service": {quote(flow.service.name)}, '
            f'"client": {quote(_endpoint(address)) if address else _UNIX}, '
            f'"backend": {quote(backend.id) if backend else "null"}, {_ENDS[reason]}, '
            f'"detail": {quote(flow.detail)}, "first_byte": {"true" if first else "false"}, '
            f'"pool_hit": {"true" if flow.pooled else "false"}, "retries": {len(tried)}, '
            f'"bytes_in": {flow.client.received}, "bytes_out": {server.received if server else 0}, '
            f"{times}{sampled}}}\n"
        ).encode("ascii")

    def _at(self, unix_s: float) -> str:
        """Return what `rfc3339` does; the second of the last line is remembered."""
        second = int(unix_s)
        carry, micros = divmod(round((unix_s - second) * _MICROS), _MICROS)
        second += carry
        if second != self._second:
            self._second = second
            self._stamp = rfc3339(second)[: -len("000Z")]
        return f"{self._stamp}{micros // 1000:03d}Z"


def _endpoint(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _ms(seconds: float) -> str:
    return f"{max(0.0, seconds) * 1000:.3f}"


Record = Callable[[Flow, CloseReason, "Leg | None"], None]


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """What the command line says; it travels to workers."""

    access_log: str = "off"
    wanted: Wanted = field(default_factory=Wanted)
    trace_sample: float = 0.0
    """The share of connections that get a span, 0..1; 0: no tracing."""
    trace_endpoint: str | None = None


class Recording:
    """One process's access log and spans; `tell` is called with the kind and the fields of an event.

    Raises:
        OSError: The access log cannot be opened.
        ValueError: The environment's OTEL_* cannot be.
    """

    def __init__(self, options: RecordingOptions, name: str, tell: Callable[..., None]) -> None:
        draw = random.Random().random  # noqa: S311 - it decides what is logged
        self._tell = tell
        self.sink = open_sink(options.access_log)
        """Where the access log goes; None: there is none."""
        self._tracing: Tracing | None = None
        records: list[Record] = []
        if self.sink is not None:
            records.append(AccessLog(self.sink, options.wanted, draw))
        if options.trace_sample:
            from dataplane.telemetry.tracing import Tracing  # noqa: PLC0415 - an extra, and 0.2 s

            self._tracing = Tracing(
                options.trace_sample, options.trace_endpoint, name=name, draw=draw, tell=tell
            )
            records.append(self._tracing)
        self.record: Record | None = _both(*records) if len(records) > 1 else next(iter(records), None)
        """What a `Service` calls at the end of each connection; None: nothing is kept."""

    def watch(self, reactor: Reactor) -> None:
        """Tell from now on when lines of the access log are lost."""
        if self.sink is not None:
            LossWatch("access log", self.sink, reactor, self._tell).start()

    @property
    def dropped_lines(self) -> int:
        """Lines of the access log that nobody will see."""
        return self.sink.dropped if self.sink else 0

    def spans(self) -> tuple[int, int]:
        """Return how many spans were exported, and how many lost."""
        return (self._tracing.exported, self._tracing.dropped) if self._tracing else (0, 0)

    def reopen(self) -> None:
        """Open the access log's file anew: somebody has renamed it."""
        try:
            if self.sink is not None and self.sink.reopen():
                self._tell("access_log_reopened", path=self.sink.path)
        except OSError as error:
            self._tell("access_log_not_reopened", cause=str(error))

    async def close(self) -> None:
        """Write and export what waits, within a few seconds."""
        if self._tracing is not None:
            await self._tracing.close()
        if self.sink is not None:
            self.sink.close()


def _both(first: Record, second: Record) -> Record:
    def record(flow: Flow, reason: CloseReason, server: Leg | None) -> None:
        first(flow, reason, server)
        second(flow, reason, server)

    return record
