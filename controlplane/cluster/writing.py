"""Writing an lb.yaml to a key for all nodes at once, and waiting until they have it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from controlplane.cluster.canaries import refuse_others
from controlplane.cluster.looking import CALL_TIMEOUT_S, Keys, Looker
from controlplane.core.arrival import Arrival, Awaited
from controlplane.core.canary_record import digest_of_content
from controlplane.discovery.consul.key import put_key
from controlplane.errors import HeldBackError

if TYPE_CHECKING:
    from controlplane.discovery.consul.client import ConsulClient


async def write(
    client: ConsulClient, keys: Keys, raw: bytes, timeout_s: float, *, force: bool = False
) -> bool:
    """Write a key with check-and-set: what somebody else writes at the same time is not overwritten, but with `force`.

    Nor is anything written beside somebody else's canary.

    Returns:
        Whether the key has changed; False: it had this content.

    Raises:
        ControlError: Consul did not take it; `HeldBackError` if somebody else was first, or is at it.
    """
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                rows = await keys.read(client)
                if not force:
                    refuse_others(keys, rows)
                row = rows.get(keys.path)
                if row is not None and row.value == raw:
                    return False
                index = 0 if row is None else row.index
                if await put_key(client, keys.path, raw, index, CALL_TIMEOUT_S):
                    return True
                if not force:
                    break
    except TimeoutError:
        raise HeldBackError(
            f"{keys.name}: no answer within {timeout_s:g} s; it may have been written"
        ) from None
    raise HeldBackError(
        f"nothing was changed: somebody else has just written {keys.name}; "
        "look at it and apply again, or use --force"
    )


@dataclass(frozen=True, slots=True)
class Written:
    """What became of it."""

    changed: bool
    nodes: list[Arrival]


async def write_and_wait(looker: Looker, raw: bytes, timeout_s: float, *, force: bool) -> Written:
    """Write a key, and wait until every live node has taken it, or will not.

    Raises:
        HeldBackError: Nothing was changed.
        ConsulError: The same; or it was, and Consul cannot be asked any more.
        InterruptedHere: It was written, and somebody does not want to wait.
    """
    deadline = time.monotonic() + timeout_s
    look = await looker.first()
    before = {view.name: view.record for view in look.picture.live()}
    changed = await write(looker.client, looker.keys, raw, timeout_s, force=force)
    looker.say(f"{looker.keys.name}: {'written' if changed else 'has this content already'}")
    awaited = Awaited(looker.keys.path, digest_of_content(raw), None, before)
    return Written(changed, await looker.arrived(awaited, deadline))
