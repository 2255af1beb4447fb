"""Runs the watches and pulses that are wanted, over one client, and follows changes of either."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

from controlplane.discovery.consul.client import ConsulClient, check_library

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable

    from controlplane.discovery.consul.settings import ConsulSettings

__all__ = ["Asking", "WatchRunner"]


class Asking(Protocol):
    """A watch, or whatever else puts questions to an agent for ever."""

    async def run(self, client: ConsulClient) -> None:
        """Ask until cancelled."""


class WatchRunner:
    """Keeps exactly what is wanted running."""

    def __init__(self) -> None:
        self._settings: ConsulSettings | None = None
        self._wanted: dict[Hashable, Asking] = {}
        self._again: set[Hashable] = set()
        self._changed = asyncio.Event()
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}
        self._client: ConsulClient | None = None

    def want(
        self,
        settings: ConsulSettings,
        wanted: Iterable[tuple[Hashable, Asking]],
        again: Collection[Hashable],
    ) -> None:
        """Set what is to run, whether or not `run` has begun.

        Args:
            settings: The agent to ask; another one than before lets everything start anew.
            wanted: All that is to run, by name.
            again: Those that have to ask at once, because somebody new waits for their answer.
        """
        self._wanted = dict(wanted)
        self.again(again if settings == self._settings else self._wanted.keys())
        self._settings = settings

    def again(self, names: Collection[Hashable]) -> None:
        """Let these start anew, so that they ask at once."""
        self._again.update(names)
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
                    await self._stop({name for name in self._tasks if name not in self._wanted} | self._again)
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
        for name, asking in self._wanted.items():
            if name not in self._tasks and self._client is not None:
                self._tasks[name] = group.create_task(asking.run(self._client), name=f"consul {name}")

    async def _stop(self, names: set[Hashable]) -> None:
        tasks = [self._tasks.pop(name) for name in names if name in self._tasks]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None
