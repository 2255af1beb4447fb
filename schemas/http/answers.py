"""What both APIs answer alike: errors, what monitoring asks for, server-sent events, and to whom nothing is answered."""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import socket
from collections.abc import AsyncIterable, Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from schemas.http.hosts import Hosts
from schemas.system.unix_socket import peer_uid

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""Of a request."""


class Refusal(NamedTuple):
    """An answer to a call that is not allowed, or that went wrong."""

    status: int
    code: str
    message: str
    details: Sequence[dict[str, Any]] = ()
    """`{path, message}` of each problem in the body of the request."""

    def response(self) -> web.Response:
        """Write it as the one body that errors have."""
        body = {"code": self.code, "message": self.message, "details": list(self.details)}
        return web.json_response(body, status=self.status)


def answered(
    refuse: Callable[[web.Request], Refusal | None], explain: Callable[[Exception], Refusal | None]
) -> Middleware:
    """Make the middleware that lets a call in, and answers whatever goes wrong with an error body.

    `refuse` says why a call is not allowed; None: it is. `explain` says what an error is to the caller; None: a bug of
    ours.
    """

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            refusal = refuse(request)
            return await handler(request) if refusal is None else refusal.response()
        except web.HTTPRequestEntityTooLarge:
            return Refusal(413, "too_large", f"a body has at most {MAX_BODY_BYTES} bytes").response()
        except web.HTTPException as error:
            code = error.reason.lower().replace(" ", "_")
            return Refusal(error.status, code, error.text or error.reason).response()
        except Exception as error:
            refusal = explain(error)
            if refusal is None:
                raise
            return refusal.response()

    return answer


async def alive(_request: web.Request) -> web.Response:
    """Answer `/livez`: the process does."""
    return web.json_response({"status": "ok"})


def prometheus(text: bytes) -> web.Response:
    """Answer with metrics in Prometheus' text format."""
    return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


HEARTBEAT_S: Final = 10.0
"""Without an event for as long, a comment is sent: who has gone is noticed, and a proxy keeps the connection."""

E = TypeVar("E")


def event_text(kind: str, fields: dict[str, Any], known_by: str | None = None) -> str:
    """Write one event, with the id that its reader comes back with."""
    head = "" if known_by is None else f"id: {known_by}\n"
    return f"{head}event: {kind}\ndata: {json.dumps(fields)}\n\n"


async def event_stream(
    request: web.Request, title: str, events: AsyncIterable[E | None], write: Callable[[E], str]
) -> web.StreamResponse:
    """Send events until they end or the reader leaves, which is no error.

    The title is a comment that is sent at once; None among the events is a heartbeat.
    """
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionResetError):
        await response.write(f": {title}\n\n".encode())
        async for event in events:
            await response.write(b": heartbeat\n\n" if event is None else write(event).encode())
    return response


# --- who may call: which user of this machine, with which Host, with which token, and no web page of others ---

MUTATIONS: Final = frozenset({"PUT", "PATCH", "POST", "DELETE"})


def caller_uid(request: web.Request) -> int | None:
    """Return the user who calls over a Unix socket; None: it is none."""
    sock = request.get_extra_info("socket")
    return None if sock is None or sock.family != socket.AF_UNIX else peer_uid(sock)


def refuse_peer(request: web.Request) -> Refusal | None:
    """Say why a caller may not use our Unix socket; None: it is root or who we are."""
    uid = caller_uid(request)
    if uid is None:
        return Refusal(403, "foreign_peer", "the peer cannot be identified")
    if uid in {0, os.geteuid()}:
        return None
    return Refusal(403, "foreign_peer", f"uid {uid} may not use this socket")


def refuse_page(request: web.Request) -> Refusal | None:
    """Say why a web page may not make a call; None: nobody's page makes it, or it changes nothing."""
    if request.method in MUTATIONS and "Origin" in request.headers:
        return Refusal(403, "foreign_origin", "a web page may not change anything here")
    return None


def refuse_host(request: web.Request, hosts: Hosts) -> Refusal | None:
    """Say why a call was not meant for us; None: it was."""
    why = hosts.foreign_host(request.headers.getall("Host", []))
    return None if why is None else Refusal(403, "foreign_host", why)


def refuse_token(request: web.Request, token: str) -> Refusal | None:
    """Say that a call lacks the token; None: it has it. Compared in constant time."""
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if hmac.compare_digest(given.encode(errors="surrogateescape"), token.encode()):
        return None
    return Refusal(401, "no_token", "a valid bearer token is required")
