"""Reads the records of a cluster's nodes from Consul: what a daemon's watch and a command without a daemon have in common."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from controlplane.cluster.session import CALL_TIMEOUT_S
from controlplane.core.nodes import Entry, Picture, picture_of
from controlplane.discovery.consul.settings import ConsulError, SettingsError

if TYPE_CHECKING:
    from controlplane.discovery.consul.client import ConsulClient, Reply

ROOT: Final = "livelb"
MAX_NODES: Final = 1000
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
    # The folder itself is a key for who has made it in Consul's page, and what is deeper is nobody's.
    return [each for each in entries if each.node and "/" not in each.node][:MAX_NODES]


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
