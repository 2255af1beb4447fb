"""What is known of a key's canary and of who changes the key: who is refused because of it, and how a canary is ended."""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from controlplane.cluster.lock import holder_said
from controlplane.cluster.looking import CALL_TIMEOUT_S, Keys
from controlplane.core.canary_record import MAX_WHY_CHARS, CanaryRecord, End, parse_record, seconds_of
from controlplane.dataplanes.requests import here
from controlplane.discovery.consul.kv import Row, set_if, transact
from controlplane.errors import HeldBackError
from controlplane.operations.options import now_text

if TYPE_CHECKING:
    from controlplane.discovery.consul.client import ConsulClient


class Ending(enum.Enum):
    """How a canary ends, as far as its command knows."""

    PROMOTED = "promoted"
    TAKEN_BACK = "taken_back"
    ENDS_BY_ITSELF = "ends_by_itself"
    """Consul could not be told."""
    TAKEN_OVER = "taken_over"
    """Somebody else has ended it, or goes on with it."""


def running(keys: Keys, rows: Mapping[str, Row]) -> CanaryRecord | None:
    """Return the canary that a picture shows, unless it has ended or its time is up; one that cannot be read is none."""
    row = rows.get(keys.canary)
    try:
        record = None if row is None else parse_record(row.value)
    except ValueError:
        return None
    if record is None or record.ended is not None:
        return None
    return record if time.time() < seconds_of(record.since) + record.lasts_s else None


def refuse_others(keys: Keys, rows: Mapping[str, Row], mine: str | None = None) -> None:
    """Stop a change while somebody else makes one, with a HeldBackError that names them.

    Args:
        keys: Whose.
        rows: What they hold.
        mine: The hash of a content with whose canary this command would go on; None: with none.
    """
    lock = rows.get(keys.lock)
    if lock is not None and lock.session is not None:
        raise HeldBackError(
            f"nothing was changed: {keys.name} is being changed: {holder_said(lock)}; if that command is dead, its lock is "
            "gone within 20 s"
        )
    record = running(keys, rows)
    if record is not None and record.content_hash != mine:
        raise HeldBackError(
            f"nothing was changed: canary {record.short_id} of {record.by} runs on {', '.join(record.nodes)} since "
            f"{record.since}, and nobody attends to it; go on with the same file, or take it back: "
            f"lb-control apply --to {keys.name} --take-back"
        )


async def take_back(client: ConsulClient, keys: Keys, by: str) -> CanaryRecord:
    """End a canary that nobody attends to, and return its end.

    Raises:
        HeldBackError: Somebody attends to it, or has just ended it.
        ControlError: There is none.
    """
    rows = await keys.read(client)
    record = running(keys, rows)
    if record is None:
        raise HeldBackError(f"nothing was changed: no canary of {keys.name} runs")
    refuse_others(keys, rows, record.content_hash)
    end = with_end(record, Ending.TAKEN_BACK, f"by {by} on {here()}")
    part = set_if(keys.canary, end.encode(), rows[keys.canary].index)
    if not await transact(client, [part], timeout_s=CALL_TIMEOUT_S):
        raise HeldBackError(f"nothing was changed: somebody else has just changed the canary of {keys.name}")
    return end


def with_end(record: CanaryRecord, ending: Ending, why: str) -> CanaryRecord:
    """Return what a canary's key holds once it has ended."""
    end = End(ending.value, why[:MAX_WHY_CHARS], now_text())
    return replace(record, content=None, ended=end)
