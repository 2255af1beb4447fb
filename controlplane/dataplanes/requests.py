"""The questions to a data plane or the daemon, and what their answers mean, whoever carries them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from controlplane.errors import RefusedError, UnreachableError
from schemas.http.headers import PUSHED_BY
from schemas.http.reloaded import Renewed

__all__ = [
    "Call",
    "answer",
    "authorization",
    "encode",
    "explain",
    "get",
    "patch_backend",
    "post",
    "put_snapshot",
    "signed",
]


@dataclass(frozen=True, slots=True)
class Call:
    """One request."""

    method: str
    target: str
    """Path and query, percent-encoded."""
    body: bytes | None = None
    """JSON, or none."""
    headers: Mapping[str, str] = field(default_factory=dict)


def authorization(token: Renewed[str] | None) -> dict[str, str]:
    """Return the headers that show a token; none if there is none."""
    return {} if token is None else {"Authorization": f"Bearer {token.now()}"}


def signed(call: Call, by: str | None) -> dict[str, str]:
    """Return a request's headers; those of a push say who pushes, if that is given."""
    return {**call.headers, PUSHED_BY: by} if by and call.method == "PUT" else dict(call.headers)


def get(path: str, **query: str) -> Call:
    """Ask for something; changes nothing."""
    return Call("GET", _target(path, query))


def post(path: str, body: Any, **query: str) -> Call:
    """Tell the daemon to do something."""
    return Call("POST", _target(path, query), encode(body))


def put_snapshot(body: bytes, *, dry_run: bool = False) -> Call:
    """Push a snapshot.

    Args:
        body: The snapshot, JSON.
        dry_run: Change nothing, and tell what would change and whom it would hit.
    """
    query = {"dry_run": "true"} if dry_run else {}
    return Call("PUT", _target("/v1/snapshot", query), body)


def patch_backend(service: str, backend: str, fields: Mapping[str, Any]) -> Call:
    """Override fields of one backend."""
    path = f"/v1/services/{quote(service, safe='')}/backends/{quote(backend, safe='')}"
    return Call("PATCH", path, encode(fields))


def explain(service: str, client: str) -> Call:
    """Ask which backends a client would get."""
    return get("/v1/explain", service=service, client=client)


def _target(path: str, query: Mapping[str, str]) -> str:
    return f"{path}?{urlencode(query)}" if query else path


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
