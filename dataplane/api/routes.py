"""The data-plane API: HTTP/1.1 and JSON over a Unix socket, or over TCP with a token or client certificates."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from aiohttp import web
from pydantic_core import PydanticSerializationError, from_json, to_json

from dataplane.api.credentials import Credentials
from dataplane.api.plane import DataPlane, Report
from dataplane.errors import Refused
from schemas.api import BackendPatch, DrainOrder, HealthUpdate, parse_pushed_by
from schemas.errors import InvalidDocument
from schemas.http.answers import (
    HEARTBEAT_S,
    MAX_BODY_BYTES,
    Refusal,
    alive,
    answered,
    event_stream,
    event_text,
    prometheus,
    refuse_host,
    refuse_page,
    refuse_peer,
    refuse_token,
)
from schemas.http.headers import PUSHED_BY
from schemas.http.hosts import Hosts
from schemas.reading.findings import checked

LONG: Final = 250
"""Items of JSON made between two turns of the loop: about a millisecond."""


class Tcp(NamedTuple):
    """Who may call over TCP."""

    hosts: Hosts | None
    """Host headers that are accepted; None: any."""
    credentials: Credentials | None = None
    """Its token is required on every call but /livez and /readyz; None: there is nothing to protect."""

    def refuse(self, request: web.Request) -> Refusal | None:
        """Return why a call is not allowed; None if it is."""
        refusal = None if self.hosts is None else refuse_host(request, self.hosts)
        token = None if self.credentials is None else self.credentials.token()
        if refusal is not None or token is None or request.path in {"/livez", "/readyz"}:
            return refusal
        return refuse_token(request, token)


class Observation:
    """What tells numbers and whether all is well, and can change nothing; without `tcp`, over a Unix socket."""

    def __init__(self, report: Report, tcp: Tcp | None = None) -> None:
        self._report = report
        self._tcp = tcp

    def application(self) -> web.Application:
        """Return the application for one listening socket."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[answered(self._refuse, _explain)])
        app.add_routes(
            [web.get("/metrics", self._metrics), web.get("/livez", alive), web.get("/readyz", self._readyz)]
        )
        return app

    def _refuse(self, request: web.Request) -> Refusal | None:
        return refuse_page(request) or (
            refuse_peer(request) if self._tcp is None else self._tcp.refuse(request)
        )

    async def _metrics(self, _request: web.Request) -> web.Response:
        return prometheus(await self._report.metrics())

    async def _readyz(self, request: web.Request) -> web.Response:
        reason = self._report.not_ready()
        return await alive(request) if reason is None else Refusal(503, "not_ready", reason).response()


class Api:
    """The routes, and who may call them; without `tcp`, over a Unix socket, whose peer is looked at."""

    def __init__(self, plane: DataPlane, tcp: Tcp | None = None) -> None:
        self._plane = plane
        self._tcp = tcp

    def application(self) -> web.Application:
        """Return the application for one listening socket, with what can be observed."""
        app = Observation(self._plane.report, self._tcp).application()
        app.add_routes(
            [
                web.get("/v1/info", self._info),
                web.put("/v1/snapshot", self._put_snapshot),
                web.get("/v1/snapshot", self._get_snapshot),
                web.put("/v1/health", self._put_health),
                web.get("/v1/status", self._status),
                web.patch("/v1/services/{service}/backends/{backend:.+}", self._patch),
                web.patch("/v1/services/{service}/backends", self._patch_all),
                web.put("/v1/drain", self._drain),
                web.get("/v1/explain", self._explain),
                web.post("/v1/restart", self._restart),
                web.put("/v1/workers", self._resize),
                web.get("/v1/events", self._follow),
            ]
        )
        return app

    async def _info(self, _request: web.Request) -> web.Response:
        return web.json_response(self._plane.report.info())

    async def _put_snapshot(self, request: web.Request) -> web.Response:
        data = await _json(request)
        if_match = request.headers.get("If-Match")
        if request.query.get("dry_run", "false").lower() in {"1", "true", "yes"}:
            return await _dumped(_pieces(await self._plane.applier.plan(data, if_match=if_match)))
        said = request.headers.get(PUSHED_BY)
        by = None if said is None else parse_pushed_by(said)
        return await _dumped(_pieces(await self._plane.applier.apply(data, if_match=if_match, by=by)))

    async def _get_snapshot(self, _request: web.Request) -> web.Response:
        return await _dumped(self._plane.applier.snapshot.text())

    async def _put_health(self, request: web.Request) -> web.Response:
        update = checked(HealthUpdate, await _json(request))
        unknown = self._plane.applier.decide_all(update.verdicts)
        return web.json_response({"unknown": unknown})

    async def _status(self, _request: web.Request) -> web.Response:
        return await _dumped(_pieces(await self._plane.report.status()))

    async def _patch(self, request: web.Request) -> web.Response:
        patch = checked(BackendPatch, await _json(request))
        service, backend = request.match_info["service"], request.match_info["backend"]
        return web.json_response(await self._plane.applier.patch(service, backend, patch))

    async def _patch_all(self, request: web.Request) -> web.Response:
        data = await _json(request)
        answer = await self._plane.applier.patch_all(request.match_info["service"], data)
        return await _dumped(_pieces(answer))

    async def _drain(self, request: web.Request) -> web.Response:
        order = checked(DrainOrder, await _json(request))
        await self._plane.applier.drain_all(draining=order.draining)
        return web.json_response({"draining": order.draining})

    async def _explain(self, request: web.Request) -> web.Response:
        query = request.query
        by_name = "sni" in query or "alpn" in query
        for key in ("client",) if by_name else ("service", "client"):
            if key not in query:
                raise Refused(422, "invalid", f"the query lacks {key}")
        service, client = query.get("service", ""), query["client"]
        if not by_name:
            return web.json_response(await self._plane.report.explain(service, client))
        sni, alpn = query.get("sni", ""), query.getall("alpn", [])
        return web.json_response(await self._plane.report.explain_by_name(service, client, sni, alpn))

    async def _restart(self, _request: web.Request) -> web.Response:
        return web.json_response(await self._plane.workers.restart())

    async def _resize(self, request: web.Request) -> web.Response:
        body = await _json(request)
        count = body.get("count") if isinstance(body, dict) else None
        if not isinstance(count, int) or isinstance(count, bool) or body != {"count": count}:
            raise Refused(422, "invalid", 'the body is {"count": N}')
        return web.json_response(await self._plane.workers.resize(count))

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        events = self._plane.events
        after = events.after(request.headers.get("Last-Event-ID", ""))
        return await event_stream(
            request,
            "livelb events",
            events.follow(after, HEARTBEAT_S),
            lambda event: event_text(event.kind, event.fields, events.id_of(event)),
        )


def _explain(error: Exception) -> Refusal | None:
    """Return what an error of a call is to the caller; None: it is a bug of ours."""
    if isinstance(error, InvalidDocument):
        return Refusal(422, "invalid", "the body is not valid", error.details())
    if isinstance(error, Refused):
        return Refusal(error.status, error.code, str(error), error.details)
    return None


async def _json(request: web.Request) -> object:
    raw = await request.read()
    try:
        return from_json(raw, cache_strings="keys")  # in half the time of json.loads
    except ValueError as error:
        raise Refused(400, "not_json", f"the body is not JSON: {error}") from error


async def _dumped(pieces: Iterable[str]) -> web.Response:
    """Answer with JSON that may be large, made piece by piece while the loop relays."""
    made: list[str] = []
    for piece in pieces:
        made.append(piece)
        await asyncio.sleep(0)
    return web.Response(body="".join(made).encode(), content_type="application/json")


def _pieces(value: object) -> Iterator[str]:
    """Yield JSON text in pieces: long lists, and dictionaries that hold some, are cut up."""
    if isinstance(value, dict) and _is_large(value):
        opening = "{"
        for key, item in value.items():
            yield f"{opening}{_text(key)}:"
            yield from _pieces(item)
            opening = ","
        yield "}"
    elif isinstance(value, list) and len(value) > LONG:
        opening = "["
        for start in range(0, len(value), LONG):
            yield opening + _text(value[start : start + LONG])[1:-1]
            opening = ","
        yield "]"
    else:
        yield _text(value)


def _text(value: object) -> str:
    """Return JSON text, in a quarter of the time of `json.dumps` where that can be."""
    try:
        return to_json(value).decode()
    except PydanticSerializationError:  # what the operating system calls a file need not be UTF-8
        return json.dumps(value, separators=(",", ":"))


def _is_large(value: object) -> bool:
    """Return whether a long list is somewhere in nested dictionaries."""
    if isinstance(value, dict):
        return len(value) > LONG or any(_is_large(item) for item in value.values())
    return isinstance(value, list) and len(value) > LONG
