"""This node's own record: written under a session for as long as this process lives.

Theory of operation:

1. What is news (all but numbers) is written at once, at most twice a second; numbers while they change, as often as `record_pace`
   says; and everything every 30 s, so that a record's time says that its node is well.
2. The session is renewed three times in its TTL. When Consul has ended it, it is made anew, and the record written again.
3. A key that another live session holds is not written: two processes have one name, or this one's predecessor was killed, and its
   session lives for at most twice its TTL. It is tried again until the key is free.
4. In good order the record says that this node has left, and the session is destroyed: it is not gone but has left. A process that
   is killed leaves that to its TTL.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from controlplane.cluster.reading import nodes_prefix
from controlplane.cluster.session import RENEW_S, TTL_S, LostSession, Session
from controlplane.core.backoff import Backoff
from controlplane.core.node_record import NodeRecord
from controlplane.core.record_pace import numbers_every_s, room_share
from controlplane.discovery.consul.settings import ConsulError
from controlplane.discovery.consul.watch import Pace, Runtime

if TYPE_CHECKING:
    from controlplane.discovery.consul.client import ConsulClient

LOOK_S: Final = 1.0
"""Between two looks at what there is to tell."""
LEAST_S: Final = 0.5
MOST_S: Final = 30.0
HELD_S: Final = 3.0
"""Before a name that somebody else has is tried again."""
Tell = Callable[[], Awaitable[NodeRecord]]


class Publisher:
    """Publishes one node's record.

    Args:
        cluster: The cluster's name.
        node: The node's.
        tell: Returns what there is to tell now; its `at` is filled in here.
        nodes: Returns how many nodes there are, as far as that is known.
        pace: How patient it is.
        runtime: Time and chance.
    """

    def __init__(
        self,
        cluster: str,
        node: str,
        tell: Tell,
        nodes: Callable[[], int] = lambda: 1,
        *,
        pace: Pace,
        runtime: Runtime,
    ) -> None:
        self.error: ConsulError | None = None
        """Why this node is not seen, or not as it is; None: it is."""
        self.since = runtime.clock()
        """Since when that is so, in monotonic seconds."""
        self.news = asyncio.Event()
        """Set by whoever knows that there may be something to tell, or that a silent agent answers again."""
        self._node = node
        self._url = f"/v1/kv/{nodes_prefix(cluster)}{node}"
        self._tell = tell
        self._nodes = nodes
        self._pace = pace
        self._runtime = runtime
        self._backoff = Backoff(cap_s=TTL_S)
        self._written: NodeRecord | None = None
        """What Consul has of this session's; None: nothing."""
        self._offered: NodeRecord | None = None
        """What it was sent last, whether its answer has come or not; None: nothing, or the name is another's."""
        self._written_at = 0.0
        self._renewed_at = 0.0

    async def run(self, client: ConsulClient) -> None:
        """Publish until cancelled, then say that this node has left."""
        session = Session(client, f"livelb {self._node}")
        try:
            while True:
                self.news.clear()
                try:
                    pause_s = await self._beat(session)
                except LostSession:
                    pause_s = LEAST_S
                except ConsulError as error:
                    self._note(error)
                    pause_s = self._pace.pause_after(error, self._backoff, self._runtime.random)
                else:
                    self._backoff.succeed()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self.news.wait()
        finally:
            await self._leave(session)

    async def _beat(self, session: Session) -> float:
        """Renew the session and write what there is to write, as far as it is due; return when to come again, in seconds."""
        clock = self._runtime.clock
        if session.id is None or clock() - self._renewed_at >= RENEW_S:
            if await session.ensure():
                self._written = None
            self._renewed_at = clock()
        record = replace(await self._tell(), at=self._runtime.rfc3339(clock()))
        wait_s = self._due_in(record)
        if wait_s > 0.0:
            return min(wait_s, LOOK_S)
        self._offered = record
        if not await session.acquire(self._url, record.encode(room_share(self._nodes()))):
            self._written = self._offered = None
            self._note(
                ConsulError(
                    "failed",
                    f"the name {self._node} is taken: another live process of the cluster has it; "
                    f"if that is the one before this, it ends within {2 * TTL_S:g} s, else set cluster.node",
                )
            )
            return HELD_S
        self._written, self._written_at = record, clock()
        self._note(None)
        return LOOK_S

    def _due_in(self, record: NodeRecord) -> float:
        """Return in how many seconds a record has to be written; 0: now."""
        if self._written is None:
            return 0.0
        age_s = self._runtime.clock() - self._written_at
        if record.without_numbers() != self._written.without_numbers():
            return max(0.0, LEAST_S - age_s)
        same = replace(record, at=self._written.at) == self._written
        return max(0.0, (MOST_S if same else numbers_every_s(self._nodes())) - age_s)

    async def _leave(self, session: Session) -> None:
        """Say that this node has left, as far as Consul answers; what it said last stays."""
        with contextlib.suppress(ConsulError):
            if self._offered is not None:
                now = self._runtime.rfc3339(self._runtime.clock())
                await session.release(
                    self._url, replace(self._offered, at=now, left=now, outcomes={}).encode()
                )
            await session.destroy()

    def _note(self, error: ConsulError | None) -> None:
        if (error is None) is not (self.error is None):
            self.since = self._runtime.clock()
        self.error = error
