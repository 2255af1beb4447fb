"""Runs the watches and pulses that pools need, over one client: equal questions are asked once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING, Protocol

from controlplane.discovery.consul.client import ConsulClient, check_library
from controlplane.discovery.consul.pulse import Pulse, is_silence
from controlplane.discovery.consul.watch import Pace, Runtime, Watch, Wish

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Sequence

    from controlplane.core.instances import Names
    from controlplane.core.track import Trust
    from controlplane.discovery.consul.pool import Pool
    from controlplane.discovery.consul.query import Query
    from controlplane.discovery.consul.settings import ConsulSettings

__all__ = ["Asking", "SharedWatches", "WatchRunner"]


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


class SharedWatches:
    """The watches of all pools, shared among those that ask the same, and a pulse for each datacenter.

    Args:
        note: Takes the keys of the selections whose pools have news.
        pace: How often to ask.
        runtime: Time and chance.
    """

    def __init__(self, note: Callable[[Iterable[str]], None], *, pace: Pace, runtime: Runtime) -> None:
        self._note = note
        self._pace = pace
        self._runtime = runtime
        self._runner = WatchRunner()
        self._watches: dict[Query, Watch] = {}
        self._pulses: dict[str, Pulse] = {}
        """By datacenter."""
        self._users: dict[Query, list[tuple[Pool, int]]] = {}
        """By query: the pools that it is for, each with the index of its datacenter there."""

    def want(self, agent: ConsulSettings, pools: Sequence[Pool]) -> None:
        """Set the pools, and give each its watches and pulses; those that are still needed go on."""
        users: dict[Query, list[tuple[Pool, int]]] = defaultdict(list)
        for pool in pools:
            for index, query in enumerate(pool.selection.queries()):
                users[query].append((pool, index))
        before = {(id(pool), index) for members in self._users.values() for pool, index in members}
        newcomers = {
            query
            for query, members in users.items()
            if any((id(pool), index) not in before for pool, index in members)
        }
        self._users = dict(users)
        self._watches = {query: self._watches.get(query) or self._new_watch(query) for query in users}
        places = {query.datacenter for query in users}
        self._pulses = {place: self._pulses.get(place) or self._new_pulse(place) for place in places}
        for pool in pools:
            queries = pool.selection.queries()
            pool.watches = tuple(self._watches[query] for query in queries)
            pool.pulses = tuple(self._pulses[query.datacenter] for query in queries)
        self._runner.want(agent, [*self._watches.items(), *self._pulses.items()], newcomers)

    async def run(self) -> None:
        """Ask until cancelled; as `WatchRunner.run`."""
        await self._runner.run()

    def _keys(self, query: Query) -> list[str]:
        return [pool.selection.key() for pool, _ in self._users.get(query, ())]

    def _new_watch(self, query: Query) -> Watch:
        def receive(entries: list[object], trust: Trust, whole: Names | None) -> Wish:
            return Wish.of_all(
                [pool.receive(index, entries, trust, whole) for pool, index in self._users.get(query, ())]
            )

        def note() -> None:
            self._note(self._keys(query))

        return Watch(query, receive, note, pace=self._pace, runtime=self._runtime)

    def _new_pulse(self, datacenter: str) -> Pulse:
        def note() -> None:
            there = [query for query in self._watches if query.datacenter == datacenter]
            self._note(key for query in there for key in self._keys(query))
            if pulse.error is None:
                # their pauses may have grown to half a minute
                self._runner.again([q for q in there if is_silence(self._watches[q].health.error)])

        pulse = Pulse(note, pace=self._pace, runtime=self._runtime, datacenter=datacenter)
        return pulse
