"""Discovery from Consul: services' queries in, their last known good backends out.

Equal selections share one pool, and equal queries one watch: ten services that balance over one Consul service cost its
agent one connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from controlplane.core.guard import GuardPolicy
from controlplane.discovery.consul.client import check_library
from controlplane.discovery.consul.pool import Pool
from controlplane.discovery.consul.query import selections_of
from controlplane.discovery.consul.runner import SharedWatches
from controlplane.discovery.consul.settings import settings_of
from controlplane.discovery.consul.status import StateClock, doubt, pool_status
from controlplane.discovery.consul.watch import Pace, Runtime
from controlplane.discovery.source import Found

if TYPE_CHECKING:
    from controlplane.discovery.consul.query import Selection
    from schemas.desired import Desired
    from schemas.discovery import Guard
    from schemas.snapshot import Backend

__all__ = ["ConsulDiscovery"]

SAVED_VERSION = 1


@dataclass(slots=True)
class _Entry:
    """One pool, and what has to be known about it from the outside."""

    pool: Pool
    services: set[str] = field(default_factory=set)
    states: StateClock = field(default_factory=StateClock)
    due: float | None = None


class ConsulDiscovery:
    """Watches Consul for all services that ask for it: see `discovery.source.Source`.

    What `answers` is not taken away because an agent or its servers are lost.
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
        self._runtime = runtime or Runtime()
        self._entries: dict[str, _Entry] = {}
        self._watches = SharedWatches(self._note, pace=self._pace, runtime=self._runtime)
        self._restored: dict[str, Any] = {}
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()
        self._advanced = asyncio.Event()

    def follow(self, desired: Desired) -> None:
        """Take the complete set of queries; equal ones keep their watch and what is known.

        Raises:
            SettingsError: The agent or a query cannot be used; nothing has changed.
        """
        wanted = selections_of(desired)
        agent, policy = settings_of(desired.consul), _policy_of(desired.guard)
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
        self._watches.want(agent, [entry.pool for entry in entries.values()])
        self._note(entries)

    async def look(self, desired: Desired, timeout_s: float, *, released: bool = False) -> Found:
        """Find what `follow` would: what is followed already is known, and Consul is asked for the rest.

        Raises:
            SettingsError: The agent or a query cannot be used.
            ConsulError: The client library cannot be used.
        """
        await check_library()
        asked = selections_of(desired).items()
        others = {name: desired.services[name] for name, each in asked if each.key() not in self._entries}
        rest = desired.model_copy(update={"services": others})
        trial = ConsulDiscovery(
            lambda: None, answers=self._answers, pace=replace(self._pace, pulse_s=0.0), runtime=self._runtime
        )
        trial.restore({"version": SAVED_VERSION, "pools": {**self._restored, **self.saved()["pools"]}})
        trial.follow(rest)
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(trial.run())
            async with asyncio.TaskGroup() as waits:
                followed = waits.create_task(self.settled(desired, timeout_s))
                found = waits.create_task(trial.settled(rest, timeout_s))
            pools = {**followed.result(), **found.result()}
            known = {name: pool.shown() if released else pool.backends for name, pool in pools.items()}
            doubts = {name: doubt(pool, released=released) for name, pool in pools.items()}
            if released:
                trial.release()
            asking.cancel()
        return Found(
            {name: backends for name, backends in known.items() if backends is not None},
            {name: why for name, why in doubts.items() if why is not None},
            trial.saved(),
        )

    def place(self, desired: Desired) -> str:
        """Name the agent."""
        return f"Consul at {settings_of(desired.consul).address()}"

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Begin with what `saved` returned in an earlier life."""
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
        self._note(self._entries)

    async def settled(self, desired: Desired, timeout_s: float) -> dict[str, Pool]:
        """Return what is known of those of the services that are followed, once a moment longer would tell nothing new.

        Raises:
            SettingsError: A query cannot be used.
        """
        keys = {service: selection.key() for service, selection in selections_of(desired).items()}
        pools = {service: self._entries[key].pool for service, key in keys.items() if key in self._entries}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not all(pool.settled() for pool in pools.values()):
                    await self._advanced.wait()
        return pools

    def discovered(self) -> Mapping[str, Sequence[Backend]]:
        """Return the last known good backends by service."""
        return {
            service: entry.pool.backends
            for entry in self._entries.values()
            if entry.pool.backends is not None
            for service in entry.services
        }

    def doubts(self) -> dict[str, str]:
        """Say, by service, why they are not what Consul shows."""
        told = [(entry, doubt(entry.pool)) for entry in self._entries.values()]
        return {service: why for entry, why in told if why is not None for service in entry.services}

    def saved(self) -> dict[str, Any]:
        """Return what `restore` takes."""
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
            group.create_task(self._watches.run(), name="consul watches")
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

    def _note(self, keys: Iterable[str]) -> None:
        """Have the pools of these keys looked at."""
        self._dirty.update(keys)
        self._wake.set()

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


def _policy_of(guard: Guard) -> GuardPolicy:
    return GuardPolicy(
        max_shrink=guard.max_shrink,
        allow_empty=guard.allow_empty,
        min_backends=guard.min_backends,
        hold_s=guard.hold,
        absent_s=guard.absent_ttl,
    )
