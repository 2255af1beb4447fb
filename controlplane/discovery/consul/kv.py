"""Keys of Consul's, several at once: read as one picture, and written together or not at all."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from controlplane.discovery.consul.settings import PREFIX, ConsulError, SettingsError

if TYPE_CHECKING:
    from controlplane.discovery.consul.client import ConsulClient, Reply

MAX_VALUE_BYTES: Final = 512 * 1024  # Consul's own limit (kv_max_value_size)
MAX_TRANSACTION_BYTES: Final = 512 * 1024  # the same (txn_max_req_len), with values in base64
_DENIED: Final = b"Permission denied"
_STEP = re.compile(r"(?!\.{1,2}$)[^\x00-\x1f\x7f]+")
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409


@dataclass(frozen=True, slots=True)
class Row:
    """One key."""

    value: bytes
    index: int
    """To write it with check-and-set."""
    session: str | None = None
    """Whose lock it is; None: nobody's."""


def url_of(path: str) -> str:
    """Return the URL's path of a key.

    Raises:
        SettingsError: It is none that a URL can name.
    """
    if not path or not all(_STEP.fullmatch(step) for step in path.split("/")):
        raise SettingsError(f"{PREFIX}{path}: no path of a key")
    return f"/v1/kv/{path}"


async def read_rows(
    client: ConsulClient, prefix: str, paths: Collection[str], *, timeout_s: float
) -> dict[str, Row]:
    """Read some keys that begin alike, at one index; those that are not there are missing.

    The leader says what it knows to be true, so that two commands on two machines do not decide by different answers.

    Raises:
        ConsulError: There is no answer, or it is none.
        SettingsError: The prefix is no path.
    """
    how = [("recurse", ""), ("consistent", "")]
    return rows_of(await client.get(url_of(prefix), how, timeout_s=timeout_s), paths)


def rows_of(reply: Reply, paths: Collection[str]) -> dict[str, Row]:
    """Return some keys of an answer that may have more.

    Raises:
        ConsulError: It is no answer to this question.
    """
    if reply.status == _NOT_FOUND:
        if "X-Consul-Index" not in reply.headers:
            raise ConsulError("protocol", "status 404: this is no Consul agent")
        return {}
    found: dict[str, Row] = {}
    try:
        for row in json.loads(reply.body):
            path = row["Key"]
            if path in paths:
                value = base64.b64decode(row["Value"] or "", validate=True)
                found[path] = Row(value, int(row["ModifyIndex"]), row.get("Session") or None)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, binascii.Error):
        raise ConsulError("protocol", "an answer that is no list of keys") from None
    if any(len(row.value) > MAX_VALUE_BYTES for row in found.values()):
        raise ConsulError("protocol", f"a value of more than {MAX_VALUE_BYTES} bytes")
    return found


def set_if(path: str, raw: bytes, index: int) -> dict[str, Any]:
    """Return the part of a transaction that writes a key if nobody has since; index 0: only if there is none."""
    return _verb("cas", path, Value=base64.b64encode(raw).decode(), Index=index)


def lock_as(path: str, raw: bytes, session: str) -> dict[str, Any]:
    """Return the part of a transaction that writes a key as a session's, unless another session holds it."""
    return _verb("lock", path, Value=base64.b64encode(raw).decode(), Session=session)


def unchanged(path: str, index: int) -> dict[str, Any]:
    """Return the part of a transaction that lets it fail if a key was written since it was read."""
    return _verb("check-index", path, Index=index)


def _verb(verb: str, path: str, **more: Any) -> dict[str, Any]:
    url_of(path)
    return {"KV": {"Verb": verb, "Key": path, **more}}


async def transact(client: ConsulClient, parts: Sequence[Mapping[str, Any]], *, timeout_s: float) -> bool:
    """Do all parts, or none; False: one of them found something else than it was to find.

    Raises:
        ConsulError: There is no answer: it may have been done all the same. Or nothing was done, for it is not allowed (kind
            `denied`) or too much (`misconfigured`).
    """
    body = json.dumps(list(parts)).encode()
    if len(body) > MAX_TRANSACTION_BYTES:
        raise ConsulError(
            "misconfigured", f"{len(body)} bytes in one transaction; Consul takes {MAX_TRANSACTION_BYTES}"
        )
    reply = await client.put("/v1/txn", (), body, timeout_s=timeout_s, also=(_CONFLICT,))
    if reply.status == _NOT_FOUND:
        raise ConsulError("protocol", "/v1/txn: status 404: this is no Consul agent")
    if reply.status == _CONFLICT and _DENIED in reply.body:  # so it answers as well if a token may not
        raise ConsulError("denied", "the token may not write all keys that begin with the path")
    return reply.status != _CONFLICT
