"""Discovery from Consul: services' queries in, their last known good backends out.

Equal queries share one watch, equal selections share one pool: ten services that balance over one Consul service
cost its agent one connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from controlplane.core.guard import GuardPolicy
from controlplane.discovery.consul.config import policy_of, selection_of, settings_of
from controlplane.discovery.consul.pool import Pool
from controlplane.discovery.consul.pulse import Pulse, is_silence
from controlplane.discovery.consul.runner import WatchRunner
from controlplane.discovery.consul.status import StateClock, doubt, pool_status
from controlplane.discovery.consul.watch import Pace, Runtime, Watch, Wish

if TYPE_CHECKING:
    from controlplane.core.instances import Names
    from controlplane.core.track import Trust
    from controlplane.discovery.consul.query import Query, Selection
    from schemas.discovery import Consul, ConsulQuery, Guard
    from schemas.snapshot import Backend

__all__ = ["ConsulDiscovery", "system_runtime"]

SAVED_VERSION = 1


def system_runtime() -> Runtime:
    """Return the system's clocks and chance."""
    return Runtime(clock=time.monotonic, wall=time.time, random=random.random)


@dataclass(slots=True)
class _Entry:
    """One pool, and what has to be known about it from the outside."""

    pool: Pool
    services: set[str] = field(default_factory=set)
    states: StateClock = field(default_factory=StateClock)
    due: float | None = None


class ConsulDiscovery:
    """Watches Consul for all services that ask for it.

    Args:
        on_change: Called, from the event loop, after `discovered` has changed.
        answers: Tells whether a service's backend passes the balancer's own checks right now: what does is not
            taken away because an agent or its servers are lost.
        pace: How often to ask.
        runtime: Time and chance.
    """

    def __init__(
        self,
        on_change: Callable[[], None],
        *,
        answers: Callable[[str, str], bool] | None = None,
        pace: Pace | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self._on_change = on_change
        self._answers = answers or (lambda _service, _backend: False)
        self._pace = pace or Pace()
        self._runtime = runtime or system_runtime()
        self._entries: dict[str, _Entry] = {}
        self._watches: dict[Query, Watch] = {}
        self._pulses: dict[str, Pulse] = {}
        """By datacenter."""
        self._users: dict[Query, list[tuple[Pool, int]]] = {}
        self._runner = WatchRunner()
        self._restored: dict[str, Any] = {}
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()
        self._advanced = asyncio.Event()

    def update(
        self, settings: Consul | None, guard: Guard | None, queries: Mapping[str, ConsulQuery]
    ) -> None:
        """Take the complete set of queries; equal ones keep their watch and what is known.

        Args:
            settings: The agent; None: the one of the environment's defaults.
            guard: How much may vanish at once; None: the defaults.
            queries: By service: its `discover.consul`.

        Raises:
            SettingsError: One of them cannot be used; nothing has changed.
        """
        wanted = {service: selection_of(query, _datacenter(settings)) for service, query in queries.items()}
        agent, policy = settings_of(settings), policy_of(guard)
        entries: dict[str, _Entry] = {}
        for service, selection in wanted.items():
            key = selection.key()
            entry = entries.get(key) or self._entries.get(key) or self._new_entry(key, selection, policy)
            if key not in entries:
                entry.services = set()
                entry.pool.set_policy(policy)
                entries[key] = entry
            entry.services.add(service)
        self._entries = entries
        self._dirty = set(entries)
        newcomers = self._connect()
        self._runner.want(agent, [*self._watches.items(), *self._pulses.items()], newcomers)
        self._wake.set()

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Begin with what `saved` returned in an earlier life, as far as it still matters; never raises for it."""
        pools = saved.get("pools")
        if saved.get("version") != SAVED_VERSION or not isinstance(pools, dict):
            return
        self._restored = {key: value for key, value in pools.items() if isinstance(value, dict)}
        for key, entry in self._entries.items():
            entry.pool.restore(self._restored.pop(key, {}))
            entry.pool.advance()

    def release(self) -> None:
        """Let what the guard holds go."""
        for entry in self._entries.values():
            entry.pool.release()
        self._dirty = set(self._entries)
        self._wake.set()

    def pools(self, settings: Consul | None, queries: Mapping[str, ConsulQuery]) -> dict[str, Pool]:
        """Return what is known of those of the queries that are followed, by service.

        Args:
            settings: Of the lb.yaml of the queries.
            queries: By service: its `discover.consul`.

        Raises:
            SettingsError: A query cannot be used.
        """
        keys = {
            service: selection_of(query, _datacenter(settings)).key() for service, query in queries.items()
        }
        return {service: self._entries[key].pool for service, key in keys.items() if key in self._entries}

    async def wait_settled(self, pools: Iterable[Pool], timeout_s: float) -> None:
        """Wait until a moment longer would tell nothing new of these, but no longer than that."""
        waited = tuple(pools)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not all(pool.settled() for pool in waited):
                    await self._advanced.wait()

    def discovered(self) -> Mapping[str, Sequence[Backend]]:
        """Return the last known good backends by service, sorted by id; services without any yet are missing."""
        return {
            service: entry.pool.backends
            for entry in self._entries.values()
            if entry.pool.backends is not None
            for service in entry.services
        }

    def doubts(self) -> dict[str, str]:
        """Return, by service, why nothing is known of it, or something else than Consul shows."""
        told = [(entry, doubt(entry.pool)) for entry in self._entries.values()]
        return {service: why for entry, why in told if why is not None for service in entry.services}

    def saved(self) -> dict[str, Any]:
        """Return what `restore` takes: JSON, without secrets."""
        pools = {
            key: entry.pool.saved() for key, entry in self._entries.items() if entry.pool.backends is not None
        }
        return {"version": SAVED_VERSION, "pools": pools}

    def status(self) -> list[dict[str, Any]]:
        """Return the status of every selection, sorted by name."""
        rows = [
            pool_status(entry.pool, sorted(entry.services), entry.states, self._runtime)
            for entry in self._entries.values()
        ]
        return sorted(rows, key=lambda row: (row["name"], row["services"]))

    async def run(self) -> None:
        """Watch until cancelled; leaves no connection behind.

        Raises:
            ConsulError: The client library cannot be used (in an exception group).
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._runner.run(), name="consul watches")
            while True:
                self._advance()
                due = min(
                    (entry.due for entry in self._entries.values() if entry.due is not None), default=None
                )
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(
                        None if due is None else max(0.0, due - self._runtime.clock())
                    ):
                        await self._wake.wait()
                self._wake.clear()

    def _advance(self) -> None:
        """Publish what is due in the pools that have news or whose time has come."""
        now = self._runtime.clock()
        changed = False
        for key, entry in self._entries.items():
            if key in self._dirty or (entry.due is not None and entry.due <= now):
                changed |= entry.pool.advance()
                entry.due = entry.pool.due()
                entry.states.note(entry.pool, now)
        self._dirty.clear()
        self._advanced.set()
        self._advanced = asyncio.Event()
        if changed:
            self._on_change()

    def _new_entry(self, key: str, selection: Selection, policy: GuardPolicy) -> _Entry:
        def answers(backend: str) -> bool:
            entry = self._entries.get(key)
            return entry is not None and any(self._answers(service, backend) for service in entry.services)

        pool = Pool(selection, policy, answers, self._runtime)
        pool.restore(self._restored.pop(key, {}))
        pool.advance()
        return _Entry(pool)

    def _connect(self) -> set[Query]:
        """Give every pool its watches, shared among those that ask the same.

        Returns:
            The queries of which somebody new waits for an answer.
        """
        users: dict[Query, list[tuple[Pool, int]]] = defaultdict(list)
        for entry in self._entries.values():
            for index, query in enumerate(entry.pool.selection.queries()):
                users[query].append((entry.pool, index))
        before = {(id(pool), index) for members in self._users.values() for pool, index in members}
        self._users = dict(users)
        self._watches = {query: self._watches.get(query) or self._new_watch(query) for query in users}
        places = {query.datacenter for query in users}
        self._pulses = {place: self._pulses.get(place) or self._new_pulse(place) for place in places}
        for entry in self._entries.values():
            queries = entry.pool.selection.queries()
            entry.pool.watches = tuple(self._watches[query] for query in queries)
            entry.pool.pulses = tuple(self._pulses[query.datacenter] for query in queries)
        return {
            query
            for query, members in users.items()
            if any((id(pool), index) not in before for pool, index in members)
        }

    def _new_pulse(self, datacenter: str) -> Pulse:
        def notify() -> None:
            there = [query for query in self._watches if query.datacenter == datacenter]
            self._dirty.update(pool.selection.key() for query in there for pool, _ in self._users[query])
            self._wake.set()
            if pulse.error is None:
                # their pauses may have grown to half a minute
                self._runner.again([q for q in there if is_silence(self._watches[q].health.error)])

        pulse = Pulse(notify, pace=self._pace, runtime=self._runtime, datacenter=datacenter)
        return pulse

    def _new_watch(self, query: Query) -> Watch:
        def mark() -> None:
            self._dirty.update(pool.selection.key() for pool, _ in self._users.get(query, ()))
            self._wake.set()

        def receive(entries: list[object], trust: Trust, whole: Names | None) -> Wish:
            return Wish.of_all(
                [pool.receive(index, entries, trust, whole) for pool, index in self._users.get(query, ())]
            )

        return Watch(query, receive, mark, pace=self._pace, runtime=self._runtime)


def _datacenter(settings: Consul | None) -> str | None:
    return None if settings is None else settings.datacenter
