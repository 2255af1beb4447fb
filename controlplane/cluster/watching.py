"""The watch of all nodes' records: one blocking query on what their keys begin with.

Theory of operation:

1. What Consul said last holds, with its age, until it says something else: a node is gone when its session is, and not when nobody
   can be asked.
2. A session that vanishes is noted with the time: the record that stays is older.
3. The key of a node that has been gone for a day is deleted by whoever sees it, unless it has been written meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from controlplane.cluster.reading import entries_of, nodes_prefix
from controlplane.cluster.session import CALL_TIMEOUT_S
from controlplane.core.backoff import Backoff, TokenBucket, WatchIndex, jittered
from controlplane.core.nodes import Entry, Picture, forgotten, picture_of
from controlplane.core.record_pace import read_pause_s
from controlplane.discovery.consul.kv import transact
from controlplane.discovery.consul.settings import ConsulError
from controlplane.discovery.consul.watch import Pace, Runtime, take_index

if TYPE_CHECKING:
    from controlplane.discovery.consul.client import ConsulClient


class NodesWatch:
    """Watches the nodes of one cluster.

    Args:
        cluster: Its name.
        wanted: Returns the SHA-256 of what is in a key, by key, as far as that is known here.
        on_change: Called after each answer, and each failure.
        pace: How patient it is.
        runtime: Time and chance.
    """

    def __init__(
        self,
        cluster: str,
        wanted: Callable[[], Mapping[str, str]],
        on_change: Callable[[], None],
        *,
        pace: Pace,
        runtime: Runtime,
    ) -> None:
        self.error: ConsulError | None = None
        """Why the last question had no answer; None: it had one."""
        self.since = runtime.clock()
        """Since when that is so, in monotonic seconds."""
        self.picture: Picture | None = None
        """None: Consul has not answered yet."""
        self.returned = asyncio.Event()
        """Set by whoever knows that a silent agent answers again."""
        self._cluster = cluster
        self._wanted = wanted
        self._on_change = on_change
        self._pace = pace
        self._runtime = runtime
        self._index = WatchIndex()
        self._backoff = Backoff()
        self._live: frozenset[str] = frozenset()
        self._seen_gone: dict[str, float] = {}

    async def run(self, client: ConsulClient) -> None:
        """Watch until cancelled."""
        bucket = TokenBucket(rate=self._pace.rate, burst=2)
        while True:
            await self._runtime.sleep(bucket.take(self._runtime.clock()))
            self.returned.clear()
            try:
                entries = await self._next(client)
            except ConsulError as error:
                self._index.forget()
                self._note(error)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(
                        self._pace.pause_after(error, self._backoff, self._runtime.random)
                    ):
                        await self.returned.wait()
                continue
            self._backoff.succeed()
            await self._take(entries)
            await self._forget(client, entries)
            await self._runtime.sleep(read_pause_s(len(entries)))  # of many nodes somebody always has news

    async def _next(self, client: ConsulClient) -> list[Entry]:
        """Read, waiting for a change if the last answer is known."""
        how, timeout_s = self._pace.blocking(
            self._index.value, jittered(self._pace.wait_s, self._runtime.random)
        )
        url = f"/v1/kv/{nodes_prefix(self._cluster)}"
        params = [("recurse", ""), *(how if self._index.value else ())]
        reply = await client.get(url, params, timeout_s=timeout_s)
        entries = entries_of(reply, self._cluster)
        take_index(self._index, reply)
        return entries

    async def _take(self, entries: list[Entry]) -> None:
        wall = self._runtime.wall()
        live = frozenset(each.node for each in entries if each.session is not None)
        self._seen_gone = {
            name: at for name, at in self._seen_gone.items() if name not in live
        } | dict.fromkeys(self._live - live, wall)
        self._live = live
        # Of many nodes it is many milliseconds of parsing.
        self.picture = await asyncio.to_thread(
            picture_of,
            self._cluster,
            entries,
            now=self._runtime.clock(),
            wall=wall,
            wanted=self._wanted(),
            seen_gone=self._seen_gone,
        )
        self._note(None)

    async def _forget(self, client: ConsulClient, entries: list[Entry]) -> None:
        for each in forgotten(entries, self._runtime.wall()):
            key = f"{nodes_prefix(self._cluster)}{each.node}"
            step = {"KV": {"Verb": "delete-cas", "Key": key, "Index": each.index}}
            with contextlib.suppress(ConsulError):  # it is tried again at the next answer
                await transact(client, [step], timeout_s=CALL_TIMEOUT_S)

    def _note(self, error: ConsulError | None) -> None:
        if (error is None) is not (self.error is None):
            self.since = self._runtime.clock()
        self.error = error
        self._on_change()
