"""Runs the watches and pulses that pools need, over one client: equal questions are asked once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from controlplane.core.instances import Names
from controlplane.core.track import Trust
from controlplane.discovery.consul.pool import Pool
from controlplane.discovery.consul.pulse import Pulse, is_silence
from controlplane.discovery.consul.query import Query
from controlplane.discovery.consul.settings import ConsulSettings
from controlplane.discovery.consul.watch import Pace, Runtime, Watch, Wish

if TYPE_CHECKING:
    from controlplane.discovery.consul.client import ConsulClient


class SharedWatches:
    """The watches of all pools, shared among those that ask the same, and a pulse for each datacenter.

    `note` takes the pools that have news.
    """

    def __init__(self, note: Callable[[Iterable[Pool]], None], *, pace: Pace, runtime: Runtime) -> None:
        self._note = note
        self._pace = pace
        self._runtime = runtime
        self._users: dict[Query, list[tuple[Pool, int]]] = {}
        """By query: the pools that it is for, each with the index of its datacenter there."""
        self._watches: dict[Query, Watch] = {}
        self._pulses: dict[str, Pulse] = {}
        """By datacenter."""
        self._agent: ConsulSettings | None = None
        self._anew: set[Query | str] = set()
        """Those that have to ask at once."""
        self._changed = asyncio.Event()
        self._tasks: dict[Query | str, asyncio.Task[None]] = {}

    def want(self, agent: ConsulSettings, pools: Sequence[Pool]) -> None:
        """Set the agent and the pools, and give each its watches and pulses; those that are still needed go on.

        A watch begins anew if somebody new waits for its answer, and all do with another agent.
        """
        users: dict[Query, list[tuple[Pool, int]]] = defaultdict(list)
        for pool in pools:
            for index, query in enumerate(pool.selection.queries()):
                users[query].append((pool, index))
        before = {user for members in self._users.values() for user in members}
        newcomers = {query for query, members in users.items() if not before.issuperset(members)}
        self._users = dict(users)
        self._watches = {query: self._watches.get(query) or self._new_watch(query) for query in users}
        places = {query.datacenter for query in users}
        self._pulses = {place: self._pulses.get(place) or self._new_pulse(place) for place in places}
        for pool in pools:
            queries = pool.selection.queries()
            pool.watches = tuple(self._watches[query] for query in queries)
            pool.pulses = tuple(self._pulses[query.datacenter] for query in queries)
        self._begin_anew(newcomers if agent == self._agent else self._wanted())
        self._agent = agent

    async def run(self) -> None:
        """Ask until cancelled, and leave no connection behind.

        Raises:
            ConsulError: The client library cannot be used.
        """
        running: ConsulSettings | None = None
        async with contextlib.AsyncExitStack() as closing, asyncio.TaskGroup() as group:
            client: ConsulClient | None = None
            while True:
                self._changed.clear()
                await self._stop((self._tasks.keys() - self._wanted().keys()) | self._anew)
                self._anew = set()
                if self._agent is not None and self._agent != running:
                    from controlplane.discovery.consul.client import connected  # noqa: PLC0415 - py-consul, only where it is needed

                    await closing.aclose()
                    running = self._agent
                    client = await closing.enter_async_context(connected(running))
                for name, asking in self._wanted().items():
                    if name not in self._tasks and client is not None:
                        task = group.create_task(asking.run(client), name=f"consul {name}")
                        self._tasks[name] = task
                await self._changed.wait()

    def _wanted(self) -> dict[Query | str, Watch | Pulse]:
        return dict([*self._watches.items(), *self._pulses.items()])

    def _begin_anew(self, names: Iterable[Query | str]) -> None:
        self._anew.update(names)
        self._changed.set()

    async def _stop(self, names: Iterable[Query | str]) -> None:
        tasks = [self._tasks.pop(name) for name in names if name in self._tasks]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _pools(self, query: Query) -> list[Pool]:
        return [pool for pool, _ in self._users.get(query, ())]

    def _new_watch(self, query: Query) -> Watch:
        def receive(entries: list[object], trust: Trust, whole: Names | None) -> Wish:
            return Wish.of_all(
                [pool.receive(index, entries, trust, whole) for pool, index in self._users.get(query, ())]
            )

        return Watch(
            query, receive, lambda: self._note(self._pools(query)), pace=self._pace, runtime=self._runtime
        )

    def _new_pulse(self, datacenter: str) -> Pulse:
        def note() -> None:
            there = [query for query in self._watches if query.datacenter == datacenter]
            self._note(pool for query in there for pool in self._pools(query))
            if pulse.error is None:
                # their pauses may have grown to half a minute
                self._begin_anew([q for q in there if is_silence(self._watches[q].health.error)])

        pulse = Pulse(note, pace=self._pace, runtime=self._runtime, datacenter=datacenter)
        return pulse
