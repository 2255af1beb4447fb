"""A command's look at a cluster, again and again: its nodes, the key that they follow, its canary and its lock."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from controlplane.cluster.reading import read_nodes
from controlplane.core.arrival import Arrival, Awaited, Standing, arrivals
from controlplane.core.canary_record import digest_of_content
from controlplane.core.nodes import Picture
from controlplane.discovery.consul.key import CANARY
from controlplane.discovery.consul.kv import Row, read_rows
from controlplane.discovery.consul.settings import PREFIX, ConsulError
from controlplane.errors import ControlError

if TYPE_CHECKING:
    from controlplane.discovery.consul.client import ConsulClient

LOCK: Final = ".lock"
"""What the lock of a command that changes has behind the path of the key."""
CALL_TIMEOUT_S: Final = 5.0
POLL_S: Final = 0.3


class InterruptedHere(ControlError):  # noqa: N818 - what an operator wants is no error
    """Somebody has interrupted the command."""

    code = "interrupted"

    def __str__(self) -> str:
        return "interrupted"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one desired state."""

    path: str

    @property
    def canary(self) -> str:
        """Of the canary's record."""
        return self.path + CANARY

    @property
    def lock(self) -> str:
        """Of who changes it."""
        return self.path + LOCK

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{PREFIX}{self.path}"

    async def read(self, client: ConsulClient) -> dict[str, Row]:
        """Read all three at one index."""
        return await read_rows(
            client, self.path, (self.path, self.canary, self.lock), timeout_s=CALL_TIMEOUT_S
        )


@dataclass(frozen=True, slots=True)
class Look:
    """What there is at one moment."""

    picture: Picture
    rows: dict[str, Row]


class Looker:
    """Looks, and does not mind when Consul is away for a while.

    Args:
        client: Of the agent.
        cluster: Its name.
        keys: What its nodes follow.
        say: Told what an operator who watches wants to see.
        stop: Set when somebody interrupts.
    """

    def __init__(
        self,
        client: ConsulClient,
        cluster: str,
        keys: Keys,
        say: Callable[[str], None],
        stop: asyncio.Event,
    ) -> None:
        self.client = client
        self.cluster = cluster
        self.keys = keys
        self.say = say
        self.stop = stop
        self._trouble: str | None = None

    async def first(self) -> Look:
        """Look once.

        Raises:
            ConsulError: There is no answer.
        """
        return Look(await read_nodes(self.client, self.cluster), await self.keys.read(self.client))

    async def look(self) -> Look | None:
        """Look again; None: Consul does not answer, which is said once."""
        try:
            found = await self.first()
        except ConsulError as error:
            if self._trouble is None:
                self.say(f"Consul cannot be asked, and is asked again: {error}")
            self._trouble = str(error)
            return None
        if self._trouble is not None:
            self.say("Consul answers again")
            self._trouble = None
        return found

    async def pause(self) -> None:
        """Wait for a moment.

        Raises:
            InterruptedHere: Somebody has interrupted.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await self.stop.wait()
        if self.stop.is_set():
            raise InterruptedHere

    async def arrived(self, awaited: Awaited, deadline: float, *, word: str = "runs it") -> list[Arrival]:
        """Wait until everybody has taken a content, or will not, or a moment of the monotonic clock has come.

        Args:
            awaited: What, and by whom.
            deadline: The moment.
            word: What is said of a node that has it.

        Returns:
            How far everybody is; empty: Consul has not answered.

        Raises:
            InterruptedHere: Somebody has interrupted.
        """
        found: list[Arrival] = []
        told: set[str] = set()
        while True:
            look = await self.look()
            if look is not None:
                found = arrivals(awaited, look.picture)
                self._tell(found, told, word)
                if found and all(each.standing.is_settled for each in found):
                    return found
                if awaited.nodes is None and self._is_overwritten(awaited, look):
                    return found
            if time.monotonic() >= deadline:
                return found
            await self.pause()

    def _tell(self, found: list[Arrival], told: set[str], word: str) -> None:
        for each in found:
            if each.standing.is_settled and each.node not in told:
                told.add(each.node)
                is_fine = each.standing is Standing.RUNS
                self.say(
                    f"{each.node}: {word}" if is_fine else f"{each.node}: {each.standing.value}: {each.why}"
                )

    def _is_overwritten(self, awaited: Awaited, look: Look) -> bool:
        row = look.rows.get(self.keys.path)
        if row is None or digest_of_content(row.value) == awaited.content_hash:
            return False
        self.say(f"somebody else has written {self.keys.name} meanwhile")
        return True
