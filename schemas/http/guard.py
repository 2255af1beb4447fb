"""Who may call: which user of this machine, with which Host, with which token, and no web page of others."""

from __future__ import annotations

import hmac
import os
import socket
from typing import TYPE_CHECKING, Final

from schemas.http.answers import Refusal
from schemas.system.unix_socket import peer_uid

if TYPE_CHECKING:
    from aiohttp import web

    from schemas.http.hosts import Hosts

__all__ = ["MUTATIONS", "caller_uid", "refuse_host", "refuse_page", "refuse_peer", "refuse_token"]

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
