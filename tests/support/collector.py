"""An OTLP/HTTP receiver: what a collector is for those who send it spans."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.support.ports import HeldPort
from tests.support.wait import wait_for


@dataclass(frozen=True)
class Span:
    """One span as it came over the wire."""

    resource: dict[str, Any]
    name: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    events: dict[str, int]
    """When each was, in Unix nanoseconds."""
    status: int
    message: str
    parent: bytes


class Collector:
    """Takes spans at `/v1/traces`, in a thread of its own.

    Args:
        status: What it answers; not 200: it refuses.
    """

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.spans: list[Span] = []
        self.requests = 0
        self._held = HeldPort()
        self._loop = asyncio.SelectorEventLoop()
        self._thread: threading.Thread | None = None
        self._runner: web.AppRunner | None = None

    @property
    def base(self) -> str:
        """Its URL without a path."""
        return f"http://{self._held.address}"

    def wait(self, count: int) -> list[Span]:
        """Return the spans as soon as there are `count`."""
        wait_for(lambda: len(self.spans) >= count, f"{count} spans")
        return self.spans

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._loop.run_forever, name="collector", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        assert self._thread is not None
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._held.release()

    async def _start(self) -> None:
        application = web.Application()
        application.router.add_post("/v1/traces", self._take)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._held.host, self._held.port).start()

    async def _take(self, request: web.Request) -> web.Response:
        self.requests += 1
        if self.status != 200:
            return web.Response(status=self.status)
        assert request.content_type == "application/x-protobuf"
        body = ExportTraceServiceRequest.FromString(await request.read())
        for group in body.resource_spans:
            resource = _plain(group.resource.attributes)
            for scope in group.scope_spans:
                self.spans.extend(_span(resource, span) for span in scope.spans)
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")


def _span(resource: dict[str, Any], span: Any) -> Span:
    return Span(
        resource,
        span.name,
        span.kind,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _plain(span.attributes),
        {event.name: event.time_unix_nano for event in span.events},
        span.status.code,
        span.status.message,
        span.parent_span_id,
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
