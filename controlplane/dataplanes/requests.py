"""The questions to a data plane or the daemon, who asks them, and what the answers mean, whoever carries them."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from controlplane.dataplanes.endpoint import Endpoint
from controlplane.dataplanes.tls import Tls
from controlplane.errors import RefusedError, UnreachableError
from schemas.http.headers import PUSHED_BY, name_in_header
from schemas.http.reloaded import Renewed


@dataclass(frozen=True, slots=True)
class Call:
    """One request."""

    method: str
    target: str
    """Path and query, percent-encoded."""
    body: bytes | None = None
    """JSON, or none."""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks data planes, and what shows it."""

    by: str | None = None
    """Who pushes, as `pushed_by` writes it; None: that is nobody's business."""
    token: Renewed[str] | None = None
    """Goes along with each call over TCP; None: no token."""
    tls: Tls = field(default_factory=Tls)
    """For `https://`."""

    def headers(self, call: Call, endpoint: Endpoint) -> dict[str, str]:
        """Return a request's headers: what it is, the token, and of a push who pushes."""
        headers = dict(call.headers)
        if self.token is not None and endpoint.is_url:
            headers["Authorization"] = f"Bearer {self.token.now()}"
        if self.by and call.method == "PUT":
            headers[PUSHED_BY] = self.by
        if call.body is not None:
            headers["Content-Type"] = "application/json"
        return headers


def pushed_by(program: str, user: str, source: str | None = None) -> str:
    """Write the header of a push.

    Args:
        program: What we are, as `lb-control run`.
        user: Whose we are.
        source: The file or key that we follow; None: we follow nothing.
    """
    words = {"program": program, "host": here(), "user": user} | (
        {} if source is None else {"source": source}
    )
    return json.dumps({key: name_in_header(text) for key, text in words.items()} | {"pid": os.getpid()})


def here() -> str:
    """Return the name of this machine."""
    return socket.gethostname() or "unknown"


def said_by(origin: Mapping[str, Any] | None) -> str:
    """Say who pushed, from what a data plane tells of it."""
    if origin is None:
        return "somebody who does not say who it is"
    source = f", from {origin['source']}" if origin.get("source") else ""
    return f"{origin['program']} of {origin['user']} (pid {origin['pid']} on {origin['host']}){source}"


def get(path: str, **query: str | Sequence[str]) -> Call:
    """Ask for something; changes nothing. What has several values is asked with each of them."""
    return Call("GET", _target(path, query))


def post(path: str, body: Any, **query: str) -> Call:
    """Tell the daemon to do something."""
    return Call("POST", _target(path, query), encode(body))


def put_snapshot(body: bytes, *, dry_run: bool = False) -> Call:
    """Push a snapshot, JSON; a dry run changes nothing, and tells what would change and whom it would hit."""
    query = {"dry_run": "true"} if dry_run else {}
    return Call("PUT", _target("/v1/snapshot", query), body)


def patch_backend(service: str, backend: str, fields: Mapping[str, Any]) -> Call:
    """Override fields of one backend."""
    path = f"/v1/services/{quote(service, safe='')}/backends/{quote(backend, safe='')}"
    return Call("PATCH", path, encode(fields))


def put_drain(*, draining: bool) -> Call:
    """Have the connections in place end at their drain timeouts, or take that back."""
    return Call("PUT", "/v1/drain", encode({"draining": draining}))


def _target(path: str, query: Mapping[str, str | Sequence[str]]) -> str:
    return f"{path}?{urlencode(query, doseq=True)}" if query else path


def encode(value: Any) -> bytes:
    """Write compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def answer(name: str, status: int, raw: bytes) -> dict[str, Any]:
    """Read an answer.

    Raises:
        RefusedError: The status is not 2xx.
        UnreachableError: A 2xx answer is not a JSON object: whatever listens there is none of ours.
    """
    try:
        body = json.loads(raw) if raw.strip() else {}
    except ValueError:
        body = None
    if not 200 <= status < 300:  # noqa: PLR2004 - HTTP's class of success
        fallback = {"message": raw[:200].decode(errors="replace").strip()}
        raise RefusedError(name, status, body if isinstance(body, dict) and body else fallback)
    if not isinstance(body, dict):
        raise UnreachableError(name, "the answer is not a JSON object")
    return body
