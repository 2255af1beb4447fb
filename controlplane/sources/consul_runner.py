"""Runs the watches that are wanted, over one client, and follows changes of either."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from controlplane.sources.consul_client import ConsulClient, check_library

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controlplane.sources.consul_query import Query
    from controlplane.sources.consul_settings import ConsulSettings
    from controlplane.sources.consul_watch import Watch

__all__ = ["WatchRunner"]


class WatchRunner:
    """Keeps exactly the wanted watches running."""

    def __init__(self) -> None:
        self._settings: ConsulSettings | None = None
        self._watches: dict[Query, Watch] = {}
        self._again: set[Query] = set()
        self._changed = asyncio.Event()
        self._tasks: dict[Query, asyncio.Task[None]] = {}
        self._client: ConsulClient | None = None

    def want(self, settings: ConsulSettings, watches: Mapping[Query, Watch], again: set[Query]) -> None:
        """Set what is to run, whether or not `run` has begun.

        Args:
            settings: The agent to ask; another one than before lets every watch start anew.
            watches: All that is to run.
            again: Those that have to ask at once, because somebody new waits for their answer.
        """
        if settings != self._settings:
            again = set(watches)
        self._settings = settings
        self._watches = dict(watches)
        self._again |= again
        self._changed.set()

    async def run(self) -> None:
        """Run until cancelled, and leave no connection behind.

        Raises:
            ConsulError: The client library cannot be used.
        """
        await check_library()
        running: ConsulSettings | None = None
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._changed.clear()
                    await self._stop(
                        {query for query in self._tasks if query not in self._watches} | self._again
                    )
                    self._again = set()
                    if self._settings is not None and self._settings != running:
                        await self._close()
                        running = self._settings
                        self._client = ConsulClient(running)
                    self._start(group)
                    await self._changed.wait()
        finally:
            self._tasks.clear()
            await self._close()

    def _start(self, group: asyncio.TaskGroup) -> None:
        for query, watch in self._watches.items():
            if query not in self._tasks and self._client is not None:
                self._tasks[query] = group.create_task(watch.run(self._client), name=f"consul {query.path()}")

    async def _stop(self, queries: set[Query]) -> None:
        tasks = [self._tasks.pop(query) for query in queries if query in self._tasks]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None
