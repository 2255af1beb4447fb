"""Reads the records of a cluster's nodes from Consul: what a daemon's watch and a command without a daemon have in common."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import json
import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from controlplane.cluster.session import CALL_TIMEOUT_S
from controlplane.core.nodes import Entry, Picture, picture_of
from controlplane.discovery.consul.settings import PREFIX, ConsulError, SettingsError
from controlplane.errors import InputError

if TYPE_CHECKING:
    from controlplane.discovery.consul.client import ConsulClient, Reply
    from controlplane.discovery.consul.settings import ConsulSettings

ROOT: Final = "livelb"
MAX_NODES: Final = 1000
_NAME: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}")
MAX_KEYS: Final = 8
"""Keys that nodes follow, of which a command looks up what they hold."""


def nodes_prefix(cluster: str) -> str:
    """Return what the keys of all nodes of a cluster begin with."""
    return f"{ROOT}/{cluster}/nodes/"


def entries_of(reply: Reply, cluster: str) -> list[Entry]:
    """Return the keys in an answer to `/v1/kv/livelb/NAME/nodes/?recurse`.

    Raises:
        ConsulError: It is no answer to this question.
    """
    if reply.status == 404:  # noqa: PLR2004 - HTTP's "not found"
        if "X-Consul-Index" not in reply.headers:
            raise ConsulError("protocol", "status 404: this is no Consul agent")
        return []
    prefix = nodes_prefix(cluster)
    try:
        rows = json.loads(reply.body)
        entries = [
            Entry(
                str(row["Key"]).removeprefix(prefix),
                base64.b64decode(row["Value"] or "", validate=True),
                row.get("Session") or None,
                int(row["ModifyIndex"]),
            )
            for row in (rows if isinstance(rows, list) else [rows])
        ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, binascii.Error):
        raise ConsulError("protocol", "an answer that is no list of keys") from None
    # The folder itself is a key for who has made it in Consul's page; what is deeper, or no node can be called, is nobody's.
    return [each for each in entries if _NAME.fullmatch(each.node)][:MAX_NODES]


async def read_cluster(settings: ConsulSettings, path: str, timeout_s: float) -> dict[str, Any]:
    """Return what `lb-control nodes --json` prints of the cluster that the lb.yaml in a key names.

    Raises:
        ControlError: Consul does not answer in time, there is no such key, or what is in it names no cluster.
    """
    from controlplane.discovery.consul.client import connected  # noqa: PLC0415 - py-consul, only where it is needed
    from controlplane.discovery.consul.key import read_key  # noqa: PLC0415 - the same

    try:
        async with asyncio.timeout(timeout_s), connected(settings) as client:
            raw, _ = await read_key(client, path, CALL_TIMEOUT_S)
            picture = await read_nodes(client, cluster_in(raw, f"{PREFIX}{path}"))
    except TimeoutError:
        raise ConsulError("timeout", f"{settings.address()}: no answer within {timeout_s:g} s") from None
    more = {"known": True, "node": None, "error": None, "error_since": None}
    return {**picture.report(time.monotonic()), **more}


def cluster_in(raw: bytes, source: str) -> str:
    """Return the name of the cluster in an lb.yaml, whatever else is wrong with that.

    Raises:
        InputError: There is none.
    """
    from schemas.errors import InvalidDocument  # noqa: PLC0415 - pydantic, only where it is needed
    from schemas.reading.document import scan_document  # noqa: PLC0415 - the same

    with contextlib.suppress(InvalidDocument):
        value = scan_document(raw).value
        section = value.get("cluster") if isinstance(value, dict) else None
        name = section.get("name") if isinstance(section, dict) else None
        if isinstance(name, str) and _NAME.fullmatch(name):
            return name
    raise InputError(source, [{"path": "cluster.name", "message": "missing: the file names no cluster"}])


async def read_nodes(client: ConsulClient, cluster: str) -> Picture:
    """Return the picture of a cluster, and what its nodes' keys say into the bargain.

    Args:
        client: Of any agent.
        cluster: Its name, as `cluster.name` has it.

    Raises:
        ConsulError: There is no answer that can be used.
    """
    url = f"/v1/kv/{nodes_prefix(cluster)}"
    entries = entries_of(await client.get(url, [("recurse", "")], timeout_s=CALL_TIMEOUT_S), cluster)
    now, wall = time.monotonic(), time.time()
    first = picture_of(cluster, entries, now=now, wall=wall)
    keys = {each.record.key for each in first.live() if each.record is not None and each.record.key}
    wanted = await _wanted(client, sorted(keys)[:MAX_KEYS])
    return picture_of(cluster, entries, now=now, wall=wall, wanted=wanted)


async def _wanted(client: ConsulClient, keys: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of what each of these keys holds; one that cannot be read is left out: records may say anything."""
    from controlplane.discovery.consul.key import read_key  # noqa: PLC0415 - py-consul, only where it is needed

    found = {}
    for key in keys:
        try:
            raw, _ = await read_key(client, key, CALL_TIMEOUT_S)
        except (ConsulError, SettingsError):
            continue
        found[key] = hashlib.sha256(raw).hexdigest()
    return found
