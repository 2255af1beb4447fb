"""OpenTelemetry: one span for each sampled connection, made from what its flow has noted when it is over.

This module alone imports opentelemetry, and it is imported only if spans were asked for.

Theory of operation:

1. A connection costs one random number. A sampled one becomes a span on the loop (45 us), after its sockets are closed.
2. `BatchSpanProcessor` has a thread that exports. So has the exporter its patience with a collector that does not
   answer: it tries again until OTEL_EXPORTER_OTLP_TIMEOUT. Meanwhile spans wait, at most `capacity` of them, those
   being sent included; what comes beyond is dropped here, and counted.
3. Spans of an export that failed are lost, and counted; why is told at most once in TELL_S.
4. `close` sends what waits, within FLUSH_S.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from dataplane.core.reasons import ENDED_WELL, CloseReason
from dataplane.net.flow import Flow
from dataplane.net.leg import Leg
from dataplane.net.sockopts import to_sockaddr
from dataplane.telemetry.events import draw_instance
from dataplane.telemetry.tls_facts import tls_attributes

CAPACITY: Final = 8192
TELL_S: Final = 60.0
FLUSH_S: Final = 3.0
"""How long the end of a process may wait for the collector."""
_NS: Final = 1_000_000_000
_ANY: Final = frozenset({"0.0.0.0", "::"})


class Tracing:
    """Makes spans of flows that have ended, and has them exported.

    Args:
        sample: The share of connections that get a span, 0 < sample <= 1.
        endpoint: The collector's URL with its path; None: as OTEL_EXPORTER_OTLP_* say, or http://localhost:4318/v1/traces.
        name: Of the data plane, for `service.instance.id`.
        draw: Returns a random number, 0 <= x < 1.
        tell: Called on the loop with the kind and the fields of an event.
        capacity: Spans.

    Raises:
        ValueError: A variable of the environment (OTEL_*) says what cannot be.
    """

    def __init__(
        self,
        sample: float,
        endpoint: str | None,
        *,
        name: str,
        draw: Callable[[], float],
        tell: Callable[..., None],
        capacity: int = CAPACITY,
    ) -> None:
        disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        self._sample = 0.0 if disabled else sample  # the SDK would take spans and export none
        self._draw = draw
        self._capacity = capacity
        self._taken = self._refused = 0
        self._exporter = _Exporter(endpoint, _Failures(tell))
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # the choice was made before there is a span
            resource=_resource(name),
            shutdown_on_exit=False,  # `close` does it, and within a bound
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter, max_queue_size=capacity))
        self._tracer = self._provider.get_tracer("livelb", version("livelb"))

    @property
    def exported(self) -> int:
        """Spans that the collector has taken."""
        return self._exporter.exported

    @property
    def dropped(self) -> int:
        """Spans that nobody will see."""
        return self._refused + self._exporter.lost

    def __call__(self, flow: Flow, reason: CloseReason, server: Leg | None) -> None:
        """Make a span of a flow that has just ended, if chance says so."""
        if self._draw() >= self._sample:
            return
        if self._taken - self._exporter.exported - self._exporter.lost >= self._capacity:
            self._refused += 1
            return
        self._taken += 1
        self._make(flow, reason, server)

    def _make(self, flow: Flow, reason: CloseReason, server: Leg | None) -> None:
        ended_ns, elapsed_s = time.time_ns(), flow.reactor.clock() - flow.started_at
        started_ns = ended_ns - int(elapsed_s * _NS)

        def at(monotonic_s: float) -> int:
            return started_ns + int((monotonic_s - flow.started_at) * _NS)

        span = self._tracer.start_span(
            f"connection {flow.service.name}",
            context=Context(),
            kind=SpanKind.SERVER,
            attributes={
                **_who(flow),
                **tls_attributes(flow, server),
                **_what(flow, reason, server),
                "lb.sample": self._sample,
            },
            start_time=started_ns,
        )
        if (
            flow.queued_s and not flow.tried and not flow.service.proxy_required
        ):  # else when it began is not known
            span.add_event("dequeued", timestamp=at(flow.started_at + flow.queued_s))
        if flow.connected_at:
            span.add_event("connected", timestamp=at(flow.connected_at))
        if flow.first_at:
            span.add_event("first_byte", timestamp=at(flow.first_at))
        if reason not in ENDED_WELL:
            span.set_status(Status(StatusCode.ERROR, flow.detail or reason.value))
        span.end(ended_ns)

    async def close(self, timeout_s: float = FLUSH_S) -> None:
        """Export what waits, but wait no longer than `timeout_s` for a collector that does not answer."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def flush() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waited so long
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=flush, name="last-spans", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await done.wait()
        if not done.is_set():
            self._exporter.shutdown()  # type: ignore[no-untyped-call] # the SDK has no types there


def _resource(name: str) -> Resource:
    """Say who tells; the environment (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES) knows better."""
    host = socket.gethostname()
    own: dict[str, AttributeValue] = {
        "service.name": "livelb",
        "service.version": version("livelb"),
        "service.instance.id": f"{host}/{name}/{draw_instance()}",
        "host.name": host,
        "process.pid": os.getpid(),
    }
    return Resource.create(own).merge(OTELResourceDetector().detect())


def _who(flow: Flow) -> dict[str, AttributeValue]:
    """Return the two ends of the client's connection, by the semantic conventions for network spans."""
    found: dict[str, AttributeValue] = {"network.transport": "tcp" if flow.address else "unix"}
    if flow.address:
        host, port = flow.address
        found |= {"client.address": host, "client.port": port}
        found["network.type"] = "ipv6" if ":" in host else "ipv4"
        if not flow.service.proxy_required:  # else the peer is a proxy, which the flow has forgotten
            found |= {"network.peer.address": host, "network.peer.port": port}
    return found | _server(flow)


def _server(flow: Flow) -> dict[str, AttributeValue]:
    """Return what the client connected to, as far as it can be known after its socket is closed."""
    if flow.destination is not None:
        return {"server.address": flow.destination[0], "server.port": flow.destination[1]}
    if len(flow.service.spec.listen) != 1:
        return {}
    (listen,) = flow.service.spec.listen
    address = to_sockaddr(listen)
    if address is None:
        return {}
    if isinstance(address.sockaddr, str):
        return {"server.address": address.sockaddr}
    host, port = address.sockaddr[:2]
    return {"server.port": port} if host in _ANY else {"server.address": host, "server.port": port}


def _what(flow: Flow, reason: CloseReason, server: Leg | None) -> dict[str, AttributeValue]:
    """Return what became of it: the fields of the access log."""
    backend = flow.backend or (flow.tried[-1] if flow.tried else None)
    found: dict[str, AttributeValue] = {
        "lb.service": flow.service.name,
        "lb.close_reason": reason.value,
        "lb.close_source": reason.source.value,
        "lb.pool_hit": flow.pooled,
        "lb.retries": len(flow.tried),
        "lb.bytes_in": flow.client.received,
        "lb.bytes_out": server.received if server else 0,
        "lb.queue_ms": _ms(flow.queued_s),
    }
    if backend is not None:
        found |= {"lb.backend": backend.id, "lb.backend_address": backend.spec.address}
    if flow.connected_at:
        found["lb.connect_ms"] = _ms(flow.connected_at - flow.started_at - flow.queued_s)
    if flow.first_at:
        found["lb.first_byte_ms"] = _ms(flow.first_at - flow.connected_at)
    if flow.detail:
        found["lb.detail"] = flow.detail
    if reason not in ENDED_WELL:
        found["error.type"] = reason.value
    return found


def _ms(seconds: float) -> float:
    return round(max(0.0, seconds) * 1000, 3)


class _Exporter(OTLPSpanExporter):
    """Counts what it exports, on the processor's thread."""

    def __init__(self, endpoint: str | None, failures: _Failures) -> None:
        super().__init__(endpoint)
        self._failures = failures
        self.exported = 0
        self.lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export, and take note of how that went."""
        self._failures.messages.clear()
        result = super().export(spans)
        if result is SpanExportResult.SUCCESS:
            self.exported += len(spans)
        else:
            self.lost += len(spans)
            self._failures.failed(len(spans))
        return result


class _Failures(logging.Handler):
    """Takes what the SDK logs, which says why an export failed, and tells of it now and then."""

    def __init__(self, tell: Callable[..., None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._spans = 0
        self._quiet_until = 0.0
        self.messages: list[str] = []
        for name in ("opentelemetry", "urllib3"):  # else they would write to standard error, and might block
            logger = logging.getLogger(name)
            logger.handlers[:] = [self]
            logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message."""
        self.messages.append(record.getMessage())

    def failed(self, spans: int) -> None:
        """Pass on to the loop that an export has failed."""
        cause = self.messages[0] if self.messages else "the collector did not take them"
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._say, spans, cause)

    def _say(self, spans: int, cause: str) -> None:
        self._spans += spans
        now: float = self._loop.time()
        if now < self._quiet_until:
            return
        self._quiet_until = now + TELL_S
        told, self._spans = self._spans, 0
        self._tell("spans_lost", spans=told, cause=cause)
