"""The data-plane API: HTTP/1.1 and JSON over a Unix socket, or over TCP with a token or client certificates."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import socket
import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from aiohttp import web

from dataplane.node.apply import Refused
from schemas.api import parse_backend_patch, parse_pushed_by
from schemas.errors import InvalidDocument
from schemas.health import parse_health
from schemas.http.headers import PUSHED_BY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aiohttp.typedefs import Handler

    from dataplane.api.credentials import Credentials
    from dataplane.telemetry.events import Events
    from schemas.api import Applied, BackendPatch, Explanation, Info, Planned, PushedBy
    from schemas.health import HealthUpdate
    from schemas.http.hosts import Hosts
    from schemas.status import Status

__all__ = ["Api", "DataPlane", "Tcp"]

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
HEARTBEAT_S: Final = 10.0
LONG: Final = 250
"""Items of JSON made between two turns of the loop: about a millisecond."""
_MUTATIONS: Final = frozenset({"PUT", "PATCH", "POST", "DELETE"})


class DataPlane(Protocol):
    """What the API serves: one process, or a supervisor with all of its workers."""

    events: Events

    def info(self) -> Info:
        """Say who answers, and what it runs."""

    async def apply(self, data: object, *, if_match: str | None, by: PushedBy | None) -> Applied:
        """Run a snapshot; `by` is whose it is, if that is said."""

    async def plan(self, data: object, *, if_match: str | None) -> Planned:
        """Say what running a snapshot would change."""

    def snapshot(self) -> Iterator[str]:
        """Yield what runs, as pieces of JSON."""

    async def status(self) -> Status:
        """Describe everything."""

    def judge(self, update: HealthUpdate) -> list[str]:
        """Take verdicts; return the `service/backend` of those that do not exist here."""

    async def patch(self, service: str, backend: str, patch: BackendPatch) -> dict[str, Any]:
        """Override a backend."""

    async def explain(self, service: str, client: str) -> Explanation:
        """Say what a client would get."""

    async def metrics(self) -> bytes:
        """Return Prometheus text."""

    async def restart(self) -> dict[str, Any]:
        """Replace every worker, one at a time, and return when all of them are new."""

    async def resize(self, count: int) -> dict[str, Any]:
        """Have `count` workers from now on."""

    def not_ready(self) -> str | None:
        """Return why this node should get no traffic; None if it may."""


def error_response(
    status: int, code: str, message: str, details: list[dict[str, Any]] | None = None
) -> web.Response:
    """Answer with the one body that errors have."""
    return web.json_response({"code": code, "message": message, "details": details or []}, status=status)


class Tcp(NamedTuple):
    """Who may call over TCP."""

    hosts: Hosts | None
    """Host headers that are accepted; None: any."""
    credentials: Credentials | None = None
    """Its token is required on every call but /livez and /readyz; None: there is nothing to protect."""


class Api:
    """The routes, and who may call them.

    Args:
        plane: What is served.
        tcp: None: over a Unix socket, whose peer is looked at.
    """

    def __init__(self, plane: DataPlane, tcp: Tcp | None = None) -> None:
        self._plane = plane
        self._tcp = tcp

    def application(self) -> web.Application:
        """Return the application for one listening socket."""
        app = self.observation()
        app.add_routes(
            [
                web.get("/v1/info", self._info),
                web.put("/v1/snapshot", self._put_snapshot),
                web.get("/v1/snapshot", self._get_snapshot),
                web.put("/v1/health", self._put_health),
                web.get("/v1/status", self._status),
                web.patch("/v1/services/{service}/backends/{backend:.+}", self._patch),
                web.get("/v1/explain", self._explain),
                web.post("/v1/restart", self._restart),
                web.put("/v1/workers", self._resize),
                web.get("/v1/events", self._follow),
            ]
        )
        return app

    def observation(self) -> web.Application:
        """Return an application that tells numbers and whether all is well, and can change nothing."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._errors, self._admission])
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
            ]
        )
        return app

    # -- who may call ---------------------------------------------------------------------------------

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except InvalidDocument as error:
            details = [{"path": problem.path, "message": problem.message} for problem in error.problems]
            return error_response(422, "invalid", "the body is not valid", details)
        except Refused as error:
            return error_response(error.status, error.code, error.message)
        except web.HTTPRequestEntityTooLarge:
            return error_response(413, "too_large", f"a body has at most {MAX_BODY_BYTES} bytes")
        except web.HTTPException as error:
            return error_response(
                error.status, error.reason.lower().replace(" ", "_"), error.text or error.reason
            )

    @web.middleware
    async def _admission(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        refusal = self._refusal(request)
        return refusal if refusal is not None else await handler(request)

    def _refusal(self, request: web.Request) -> web.Response | None:
        if request.method in _MUTATIONS and "Origin" in request.headers:
            return error_response(403, "foreign_origin", "a web page may not change anything here")
        tcp = self._tcp
        if tcp is None:
            return self._refuse_peer(request)
        hosts = request.headers.getall("Host", [])
        why = None if tcp.hosts is None else tcp.hosts.foreign_host(hosts)
        if why is not None:
            return error_response(403, "foreign_host", why)
        token = None if tcp.credentials is None else tcp.credentials.token()
        if token is None or request.path in {"/livez", "/readyz"}:
            return None
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode()):
            return None
        return error_response(401, "no_token", "a valid bearer token is required")

    @staticmethod
    def _refuse_peer(request: web.Request) -> web.Response | None:
        sock = request.get_extra_info("socket")
        if sock is None or sock.family != socket.AF_UNIX:
            return error_response(403, "foreign_peer", "the peer cannot be identified")
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid in {0, os.geteuid()}:
            return None
        return error_response(403, "foreign_peer", f"uid {uid} may not use this socket")

    # -- the calls ------------------------------------------------------------------------------------

    async def _info(self, _request: web.Request) -> web.Response:
        return web.json_response(self._plane.info())

    async def _put_snapshot(self, request: web.Request) -> web.Response:
        data = await _json(request)
        if_match = request.headers.get("If-Match")
        if request.query.get("dry_run", "false").lower() in {"1", "true", "yes"}:
            return web.json_response(await self._plane.plan(data, if_match=if_match))
        said = request.headers.get(PUSHED_BY)
        by = None if said is None else parse_pushed_by(said)
        return web.json_response(await self._plane.apply(data, if_match=if_match, by=by))

    async def _get_snapshot(self, _request: web.Request) -> web.Response:
        return await _dumped(self._plane.snapshot())

    async def _put_health(self, request: web.Request) -> web.Response:
        update = parse_health(await _json(request))
        unknown = self._plane.judge(update)
        return web.json_response({"unknown": unknown})

    async def _status(self, _request: web.Request) -> web.Response:
        return await _dumped(_pieces(await self._plane.status()))

    async def _patch(self, request: web.Request) -> web.Response:
        patch = parse_backend_patch(await _json(request))
        service, backend = request.match_info["service"], request.match_info["backend"]
        return web.json_response(await self._plane.patch(service, backend, patch))

    async def _explain(self, request: web.Request) -> web.Response:
        try:
            service, client = request.query["service"], request.query["client"]
        except KeyError as error:
            raise Refused(422, "invalid", f"the query lacks {error.args[0]}") from error
        return web.json_response(await self._plane.explain(service, client))

    async def _restart(self, _request: web.Request) -> web.Response:
        return web.json_response(await self._plane.restart())

    async def _resize(self, request: web.Request) -> web.Response:
        body = await _json(request)
        count = body.get("count") if isinstance(body, dict) else None
        if not isinstance(count, int) or isinstance(count, bool) or body != {"count": count}:
            raise Refused(422, "invalid", 'the body is {"count": N}')
        return web.json_response(await self._plane.resize(count))

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(
            body=await self._plane.metrics(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def _livez(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, _request: web.Request) -> web.Response:
        reason = self._plane.not_ready()
        return (
            web.json_response({"status": "ok"})
            if reason is None
            else error_response(503, "not_ready", reason)
        )

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        events = self._plane.events
        after = events.after(request.headers.get("Last-Event-ID", ""))
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        await response.write(b": livelb events\n\n")
        with contextlib.suppress(ConnectionResetError):  # the follower has left
            async for event in events.follow(after, HEARTBEAT_S):
                if event is None:
                    await response.write(b": heartbeat\n\n")
                    continue
                data = json.dumps(event.fields)
                told = f"id: {events.id_of(event)}\nevent: {event.kind}\ndata: {data}\n\n"
                await response.write(told.encode())
        return response


async def _json(request: web.Request) -> object:
    raw = await request.read()
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
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
            yield f"{opening}{json.dumps(key)}: "
            yield from _pieces(item)
            opening = ", "
        yield "}"
    elif isinstance(value, list) and len(value) > LONG:
        opening = "["
        for start in range(0, len(value), LONG):
            yield opening + json.dumps(value[start : start + LONG])[1:-1]
            opening = ", "
        yield "]"
    else:
        yield json.dumps(value)


def _is_large(value: object) -> bool:
    """Return whether a long list is somewhere in nested dictionaries."""
    if isinstance(value, dict):
        return len(value) > LONG or any(_is_large(item) for item in value.values())
    return isinstance(value, list) and len(value) > LONG
