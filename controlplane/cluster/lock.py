"""The lock of a command that changes a key in steps: a key beside it, under a session that dies with the command.

Theory of operation:

1. The lock says whose it is, so that whoever comes second is refused by name. It is renewed three times in its TTL; a
   command that is killed leaves it for 10 to 20 s.
2. Consul ends a session when nobody could renew it for that long, for example without a leader. Then it is taken again, in a
   new session, unless somebody else has it by then.
3. It keeps two people out of each other's way. What protects the keys is that each is written only if it is still what was
   read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from controlplane.cluster.looking import CALL_TIMEOUT_S, Keys
from controlplane.cluster.session import RENEW_S, Session
from controlplane.discovery.consul.kv import Row, lock_as, transact
from controlplane.discovery.consul.settings import ConsulError
from controlplane.errors import ControlError

if TYPE_CHECKING:
    from controlplane.discovery.consul.client import ConsulClient

_SHOWN_CHARS = 100


@dataclass(frozen=True, slots=True)
class Holder:
    """Who changes a key."""

    by: str
    host: str
    pid: int
    since: str
    doing: str

    def encode(self) -> bytes:
        """Write it as the lock's value."""
        return json.dumps(asdict(self)).encode()

    @property
    def said(self) -> str:
        """What to call it."""
        return f"{self.doing} by {self.by} on {self.host} (pid {self.pid}) since {self.since}"


def holder_said(row: Row) -> str:
    """Say whose a lock is that somebody else holds; anybody may have written it."""
    try:
        value = json.loads(row.value)
        said = Holder(**{each: value[each] for each in ("by", "host", "pid", "since", "doing")}).said
    except (ValueError, TypeError, KeyError, RecursionError):
        said = f"somebody who does not say who it is (session {row.session})"
    return "".join(char if char.isprintable() else " " for char in said[: 5 * _SHOWN_CHARS])


class Lock:
    """One command's lock."""

    def __init__(self, client: ConsulClient, keys: Keys, holder: Holder) -> None:
        self._client = client
        self._keys = keys
        self._holder = holder
        self._session = Session(client, f"livelb {holder.doing} of {holder.by}", "delete")

    async def take(self, *also: dict[str, Any]) -> bool:
        """Take it, and do this at once; False: somebody else has it, or something is not as it was read.

        Raises:
            ConsulError: There is no answer.
        """
        await self._session.ensure()
        assert self._session.id is not None  # noqa: S101 - `ensure` has made it
        mine = lock_as(self._keys.lock, self._holder.encode(), self._session.id)
        return await transact(self._client, [mine, *also], timeout_s=CALL_TIMEOUT_S)

    async def drop(self) -> None:
        """Let it go, as far as Consul answers: it ends by itself."""
        with contextlib.suppress(ConsulError):
            await self._session.destroy()

    @contextlib.asynccontextmanager
    async def renewed(self) -> AsyncIterator[None]:
        """Renew it while the block runs, and then let it go, as far as Consul answers."""
        failure: ControlError | None = None
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self._renew())
            try:
                yield
            except ControlError as error:  # raised in here it would come out in a group
                failure = error
            finally:
                task.cancel()
                await self.drop()
        if failure is not None:
            raise failure

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            # Whoever writes with it meets what is wrong with it, and says so.
            with contextlib.suppress(ConsulError):
                if await self._session.ensure():
                    await self.take()
