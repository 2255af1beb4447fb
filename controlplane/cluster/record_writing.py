"""Writes a canary's record, and finds out what became of it when Consul did not say."""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from controlplane.cluster.canaries import refuse_others
from controlplane.cluster.lock import Lock
from controlplane.cluster.looking import CALL_TIMEOUT_S, InterruptedHere, Looker
from controlplane.core.canary_record import CanaryRecord, digest_of_content
from controlplane.discovery.consul.kv import Row, set_if, transact
from controlplane.discovery.consul.settings import ConsulError
from controlplane.errors import HeldBackError

GIVE_UP_S: Final = 30.0
"""How long a command tries to write what ends by itself all the same."""


class Fate(enum.Enum):
    """What became of an end."""

    WRITTEN = "written"
    BLOCKED = "blocked"
    """The record is as it was: what was to be written with it was not as it should be."""
    LOST = "lost"
    """Somebody else has ended it, or goes on with it."""
    UNKNOWN = "unknown"
    """Consul has not said."""


class RecordWriting:
    """Of one command."""

    def __init__(self, looker: Looker) -> None:
        self._looker = looker
        self._client = looker.client
        self._keys = looker.keys

    async def begin(self, record: CanaryRecord, lock: Lock, parts: Sequence[dict[str, Any]]) -> int:
        """Write a record and take the lock at once; return the record's index.

        Raises:
            HeldBackError: Somebody else was first, or Consul does not say what became of it.
            ConsulError: Nothing was done, for Consul does not allow it.
        """
        deadline = time.monotonic() + GIVE_UP_S
        while True:
            try:
                await lock.take(*parts)  # the record tells whether, also if this has no answer
                rows = await self._keys.read(self._client)
            except ConsulError as error:
                if error.is_operators:
                    raise
                if time.monotonic() >= deadline or self._looker.stop.is_set():
                    nodes = ", ".join(record.nodes)
                    raise HeldBackError(
                        f"Consul does not say whether a canary has begun on {nodes}: {error}; if so, it ends by itself within "
                        f"{record.lasts_s:.0f} s"
                    ) from error
                await self._doze()
                continue
            row = rows.get(self._keys.canary)
            if row is not None and row.value == record.encode():
                return row.index
            refuse_others(self._keys, rows, record.content_hash)
            raise HeldBackError(
                f"nothing was changed: somebody else has just changed {self._keys.name}; apply again"
            )

    async def end(
        self, end: CanaryRecord, index: int, deadline: float, also: Sequence[Mapping[str, Any]] = ()
    ) -> Fate:
        """Write a record's end, and what is to be written with it, until it is known what became of it.

        Args:
            end: The record with its end.
            index: Of the record as this command has written it.
            deadline: When to give up, by the monotonic clock.
            also: Other parts of the transaction.
        """
        parts = [*also, set_if(self._keys.canary, end.encode(), index)]
        while time.monotonic() < deadline:
            try:
                if await transact(self._client, parts, timeout_s=CALL_TIMEOUT_S):
                    return Fate.WRITTEN
                row = (await self._keys.read(self._client)).get(self._keys.canary)
            except ConsulError as error:
                self._looker.say(f"Consul cannot be told, and is told again: {error}")
                if self._looker.stop.is_set():  # interrupted once more
                    break
                await self._doze()
                continue
            return _fate(row, end, index)
        return Fate.UNKNOWN

    async def content_hash(self) -> str | None:
        """Return the hash of what the key holds now; None: that is not known."""
        with contextlib.suppress(ConsulError):
            row = (await self._keys.read(self._client)).get(self._keys.path)
            return None if row is None else digest_of_content(row.value)
        return None

    async def _doze(self) -> None:
        with contextlib.suppress(InterruptedHere):
            await self._looker.pause()


def _fate(row: Row | None, end: CanaryRecord, index: int) -> Fate:
    """Tell what became of an end that was not written now, from what is there."""
    if row is not None and row.value == end.encode():
        return Fate.WRITTEN  # by a transaction whose answer was lost
    return Fate.BLOCKED if row is not None and row.index == index else Fate.LOST
