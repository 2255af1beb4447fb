"""The daemon's API: HTTP/1.1 and JSON on the control socket, and read-only or with a token over TCP."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final, Protocol

from aiohttp import web

from controlplane.daemon.events import Events
from controlplane.daemon.http import Tcp
from controlplane.desired.document import Proposal, input_error
from controlplane.errors import ControlError, InputError
from controlplane.operations.controller import Controller
from controlplane.operations.options import Origin, options_of_query
from schemas.api import BackendPatch
from schemas.errors import InvalidDocument
from schemas.http.answers import (
    HEARTBEAT_S,
    MAX_BODY_BYTES,
    Refusal,
    alive,
    answered,
    caller_uid,
    event_stream,
    event_text,
    prometheus,
    refuse_page,
    refuse_peer,
)
from schemas.reading.findings import checked
from schemas.system.ownership import user_name

_PATCH_S: Final = 5.0


class Node(Protocol):
    """What the API serves."""

    controller: Controller
    events: Events

    async def status(self) -> dict[str, Any]:
        """Return the status of the node."""

    def nodes(self) -> dict[str, Any]:
        """Return the picture of the cluster; UnknownError if there is none."""

    async def metrics(self) -> bytes:
        """Return the status as Prometheus text."""


class Api:
    """The routes.

    Args:
        node: What is served.
        tcp: Who may call over TCP; None on the Unix socket.
    """

    def __init__(self, node: Node, tcp: Tcp | None = None) -> None:
        self._node = node
        self._tcp = tcp

    def application(self) -> web.Application:
        """Return the application for one listening socket."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[answered(self._refuse, _explain)])
        app.add_routes(
            [
                web.get("/v1/status", self._status),
                web.get("/v1/snapshot", self._snapshot),
                web.get("/v1/history", self._history),
                web.get("/v1/events", self._follow),
                web.get("/v1/nodes", self._nodes),
                web.post("/v1/plan", self._plan),
                web.post("/v1/apply", self._apply),
                web.post("/v1/rollback", self._rollback),
                web.patch("/v1/services/{service}/backends/{backend:.+}", self._patch),
                web.get("/metrics", self._metrics),
                web.get("/livez", alive),
            ]
        )
        if self._tcp is not None:
            self._tcp.add_page(app)
        return app

    # --- who may call

    def _refuse(self, request: web.Request) -> Refusal | None:
        if self._tcp is not None:
            return self._tcp.refusal(request)
        return refuse_page(request) or refuse_peer(request)

    # --- the calls

    async def _status(self, _request: web.Request) -> web.Response:
        return await _answer(await self._node.status())

    async def _snapshot(self, _request: web.Request) -> web.Response:
        return await _answer(await self._node.controller.accepted.snapshot())

    async def _history(self, _request: web.Request) -> web.Response:
        return await _answer(await self._node.controller.accepted.history())

    async def _nodes(self, _request: web.Request) -> web.Response:
        return await _answer(self._node.nodes())

    async def _plan(self, request: web.Request) -> web.Response:
        options = options_of_query(request.query)
        return await _answer(await self._node.controller.plan(await self._proposal(request), options))

    async def _apply(self, request: web.Request) -> web.Response:
        options = options_of_query(request.query)
        proposal = await self._proposal(request)
        origin = Origin(_by(request), "apply")
        return await _answer(await self._node.controller.apply(proposal, options, origin))

    async def _rollback(self, request: web.Request) -> web.Response:
        options = options_of_query(request.query)
        body = await _json_object(request)
        generation = body.get("generation")
        if body.keys() - {"generation"} or not (generation is None or type(generation) is int):
            raise InputError(
                "", [{"path": "generation", "message": "must be a whole number, and all there is"}]
            )
        report = await self._node.controller.rollback(generation, options, _by(request))
        return await _answer(report)

    async def _patch(self, request: web.Request) -> web.Response:
        patch = checked(BackendPatch, await _json_object(request))
        report = await self._node.controller.patch(
            request.match_info["service"],
            request.match_info["backend"],
            patch.body(),
            by=_by(request),
            timeout_s=_PATCH_S,
        )
        return await _answer(report)

    async def _metrics(self, _request: web.Request) -> web.Response:
        return prometheus(await self._node.metrics())

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        remembered = request.query.get("remembered") == "true"
        return await event_stream(
            request,
            "livelb control events",
            self._node.events.follow(HEARTBEAT_S, remembered=remembered),
            lambda event: event_text(event["type"], event),
        )

    async def _proposal(self, request: web.Request) -> Proposal:
        await _json_object(request)
        raw = await request.read()
        return await asyncio.to_thread(self._node.controller.reader.text, raw, "")


def _by(request: web.Request) -> str:
    """Name who calls, for the history."""
    uid = caller_uid(request)
    return "http" if uid is None else user_name(uid)


def _explain(error: Exception) -> Refusal | None:
    """Return what an error of a call is to the caller; None: it is a bug of ours."""
    if isinstance(error, InvalidDocument):
        return Refusal(422, "invalid", "the body is not valid", input_error(error, "").problems)
    if isinstance(error, InputError):
        return Refusal(error.status, error.code, "the input is not valid", error.problems)
    if isinstance(error, ControlError):
        return Refusal(error.status, error.code, str(error))
    return None


async def _json_object(request: web.Request) -> dict[str, Any]:
    raw = await request.read()
    try:
        value = await asyncio.to_thread(json.loads, raw)
    except (ValueError, RecursionError) as error:
        raise web.HTTPBadRequest(text=f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError("", [{"path": "", "message": "must be an object"}])
    return value


async def _answer(value: dict[str, Any]) -> web.Response:
    body = await asyncio.to_thread(json.dumps, value)
    return web.Response(text=body, content_type="application/json")
