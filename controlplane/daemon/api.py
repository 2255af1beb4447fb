"""The daemon's API: HTTP/1.1 and JSON on the control socket, and read-only or with a token over TCP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiohttp import web

from controlplane.daemon.events import Events
from controlplane.daemon.http import Page, Refusal, Tcp
from controlplane.daemon.socket import peer_uid
from controlplane.desired.document import Proposal, input_error
from controlplane.errors import ControlError, InputError
from controlplane.operations.options import Origin, options_of_query
from schemas.api import parse_backend_patch
from schemas.errors import InvalidDocument

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp.typedefs import Handler

    from controlplane.operations.controller import Controller

__all__ = ["Api", "Node", "Tcp"]

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
HEARTBEAT_S: Final = 10.0
_MUTATIONS: Final = frozenset({"PUT", "PATCH", "POST", "DELETE"})
_PATCH_S: Final = 5.0


class Node(Protocol):
    """What the API serves."""

    controller: Controller
    events: Events
    base: Path

    async def status(self) -> dict[str, Any]:
        """Return the status of the node."""

    async def metrics(self) -> bytes:
        """Return the status as Prometheus text."""


class Api:
    """The routes.

    Args:
        node: What is served.
        user_name: Names a uid, for the history.
        tcp: Who may call over TCP; None on the Unix socket.
    """

    def __init__(self, node: Node, user_name: Callable[[int], str], tcp: Tcp | None = None) -> None:
        self._node = node
        self._user_name = user_name
        self._tcp = tcp

    def application(self) -> web.Application:
        """Return the application for one listening socket."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._errors, self._admission])
        app.add_routes(
            [
                web.get("/v1/status", self._status),
                web.get("/v1/snapshot", self._snapshot),
                web.get("/v1/history", self._history),
                web.get("/v1/events", self._follow),
                web.post("/v1/plan", self._plan),
                web.post("/v1/apply", self._apply),
                web.post("/v1/rollback", self._rollback),
                web.patch("/v1/services/{service}/backends/{backend:.+}", self._patch),
                web.get("/metrics", self._metrics),
                web.get("/livez", self._livez),
            ]
        )
        if self._tcp is not None:
            Page(token=self._tcp.token is not None).add_to(app)
        return app

    # --- who may call, and what an error looks like

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except InvalidDocument as error:
            return _error(422, "invalid", "the body is not valid", input_error(error, "").problems)
        except InputError as error:
            return _error(error.status, error.code, "the input is not valid", error.problems)
        except ControlError as error:
            return _error(error.status, error.code, str(error))
        except web.HTTPRequestEntityTooLarge:
            return _error(413, "too_large", f"a body has at most {MAX_BODY_BYTES} bytes")
        except web.HTTPException as error:
            return _error(error.status, error.reason.lower().replace(" ", "_"), error.text or error.reason)

    @web.middleware
    async def _admission(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        refusal = self._refuse_peer(request) if self._tcp is None else self._tcp.refusal(request)
        return _error(*refusal) if refusal is not None else await handler(request)

    def _refuse_peer(self, request: web.Request) -> Refusal | None:
        if request.method in _MUTATIONS and "Origin" in request.headers:
            return Refusal(403, "foreign_origin", "a web page may not change anything here")
        uid = _uid(request)
        if uid in {0, os.geteuid()}:
            return None
        return Refusal(403, "foreign_peer", f"uid {uid} may not use this socket")

    def _by(self, request: web.Request) -> str:
        uid = _uid(request)
        return "http" if uid is None else self._user_name(uid)

    # --- the calls

    async def _status(self, _request: web.Request) -> web.Response:
        return await _answer(await self._node.status())

    async def _snapshot(self, _request: web.Request) -> web.Response:
        return await _answer(await self._node.controller.snapshot())

    async def _history(self, _request: web.Request) -> web.Response:
        return await _answer(await self._node.controller.history())

    async def _plan(self, request: web.Request) -> web.Response:
        options = options_of_query(request.query)
        return await _answer(await self._node.controller.plan(await self._proposal(request), options))

    async def _apply(self, request: web.Request) -> web.Response:
        options = options_of_query(request.query)
        proposal = await self._proposal(request)
        origin = Origin(self._by(request), "apply")
        return await _answer(await self._node.controller.apply(proposal, options, origin))

    async def _rollback(self, request: web.Request) -> web.Response:
        options = options_of_query(request.query)
        body = await _json_object(request)
        generation = body.get("generation")
        if body.keys() - {"generation"} or not (generation is None or type(generation) is int):
            raise InputError(
                "", [{"path": "generation", "message": "must be a whole number, and all there is"}]
            )
        report = await self._node.controller.rollback(generation, options, self._by(request))
        return await _answer(report)

    async def _patch(self, request: web.Request) -> web.Response:
        patch = parse_backend_patch(await _json_object(request))
        report = await self._node.controller.patch(
            request.match_info["service"],
            request.match_info["backend"],
            patch.body(),
            by=self._by(request),
            timeout_s=_PATCH_S,
        )
        return await _answer(report)

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(
            body=await self._node.metrics(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def _livez(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        remembered = request.query.get("remembered") == "true"
        with contextlib.suppress(ConnectionResetError):  # whoever followed has gone, as followers do
            await response.write(b": livelb control events\n\n")
            async for event in self._node.events.follow(HEARTBEAT_S, remembered=remembered):
                told = "" if event is None else f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
                await response.write(told.encode() or b": heartbeat\n\n")
        return response

    async def _proposal(self, request: web.Request) -> Proposal:
        await _json_object(request)
        raw = await request.read()
        return await asyncio.to_thread(Proposal.of_text, raw, "", self._node.base)


def _uid(request: web.Request) -> int | None:
    sock = request.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX:
        return None
    return peer_uid(sock)


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


def _error(status: int, code: str, message: str, details: tuple[dict[str, Any], ...] = ()) -> web.Response:
    return web.json_response({"code": code, "message": message, "details": list(details)}, status=status)
