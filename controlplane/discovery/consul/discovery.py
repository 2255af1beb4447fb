"""Discovery from Consul: services' queries in, their last known good backends out.

Equal selections share one pool, and equal queries one watch: ten services that balance over one Consul service cost its
agent one connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from controlplane.core.guard import GuardPolicy
from controlplane.core.instances import Remark, with_rejected
from controlplane.discovery.consul.pool import Pool
from controlplane.discovery.consul.query import selections_of
from controlplane.discovery.consul.runner import SharedWatches
from controlplane.discovery.consul.settings import settings_of
from controlplane.discovery.consul.status import doubt, note_state, pool_status
from controlplane.discovery.consul.watch import Pace, Runtime
from schemas.desired import Desired
from schemas.discovery import Guard
from schemas.snapshot import Backend

SAVED_VERSION: Final = 1
_PATIENCE_S: Final = 1.0
"""After which it is said what is waited for."""


@dataclass(frozen=True, slots=True)
class Found:
    """What discovery says of one lb.yaml."""

    backends: Mapping[str, Sequence[Backend]] = field(default_factory=dict)
    """By service; one of which nothing is known is missing."""
    doubts: Mapping[str, str] = field(default_factory=dict)
    """By service: why nothing is known of it, or something else than Consul shows."""
    saved: Mapping[str, Any] = field(default_factory=dict)
    """What `restore` takes, so that whoever follows the lb.yaml next begins with it."""


class ConsulDiscovery:
    """Watches Consul for all services that ask for it. What it knew last holds, whatever happens to it.

    Nothing of it is loaded or asked before a service asks for it.

    Args:
        on_change: Called after `discovered` has changed.
        tell: Told what is waited for, if that takes longer than somebody expects.
        answers: Tells whether a service's backend, by its id, passes the data planes' own checks: what does is not taken
            away because an agent or its servers are lost. None: who is in `healthy`.
        pace: How often Consul is asked.
        runtime: Time and chance.
    """

    def __init__(
        self,
        on_change: Callable[[], None],
        tell: Callable[[str], None],
        *,
        answers: Callable[[str, str], bool] | None = None,
        pace: Pace | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self.active = False
        """Whether anything was ever to be discovered."""
        self.healthy: frozenset[tuple[str, str]] = frozenset()
        """Service and id of the backends that pass the data planes' own checks, as last seen."""
        self.rejected: Mapping[str, Sequence[Remark]] = {}
        """By service: what was found and is not used, since it leads back into the balancer."""
        self._on_change = on_change
        self._tell = tell
        self._answers = answers or (lambda *backend: backend in self.healthy)
        self._pace = pace or Pace()
        self._runtime = runtime or Runtime()
        self._pools: dict[str, Pool] = {}
        """By the key of the selection."""
        self._watches = SharedWatches(self._note, pace=self._pace, runtime=self._runtime)
        self._earlier: Mapping[str, Any] = {}
        """What was restored, until something is followed."""
        self._restored: dict[str, Any] = {}
        """Its pools, by the key of the selection, those apart that are followed."""
        self._news: set[Pool] = set()
        self._wake = asyncio.Event()
        self._advanced = asyncio.Event()

    def follow(self, desired: Desired, found: Found | None = None) -> None:
        """Find what the services of this lb.yaml ask for, and nothing else; equal queries keep what is known.

        Begin with what `look` has found for it.

        Raises:
            SettingsError: The agent or a query cannot be used.
        """
        wanted = selections_of(desired)
        if not (wanted or self.active):
            self._earlier = self._restored = {}  # what is not followed is forgotten
            return
        if found is not None:
            self.restore(found.saved)
        agent, policy = settings_of(desired.consul), _policy_of(desired.guard)
        pools: dict[str, Pool] = {}
        for service, selection in wanted.items():
            key = selection.key()
            if key not in pools:
                pool = self._pools.get(key) or Pool(selection, policy, self._answers, self._runtime)
                pool.restore(self._restored.pop(key, {}))
                pool.set_policy(policy)
                pool.services = set()
                pools[key] = pool
            pools[key].services.add(service)
        self._pools, self.active = pools, True
        self._watches.want(agent, list(pools.values()))
        self._note(pools.values())

    async def look(self, desired: Desired, timeout_s: float, *, released: bool = False) -> Found:
        """Find what `follow` would, with the same memory and the same guard; nothing changes.

        What is followed already under the same guard is known, and Consul is asked for the rest.

        Args:
            desired: The lb.yaml.
            timeout_s: How long to wait at most.
            released: Believe Consul's word against the guard's.

        Raises:
            SettingsError: The agent or a query cannot be used.
            ConsulError: The client library cannot be used.
        """
        asked = selections_of(desired).items()
        if not asked:
            return Found()
        from controlplane.discovery.consul.client import check_library  # noqa: PLC0415 - py-consul, only where it is needed

        await check_library()
        policy = _policy_of(desired.guard)
        same = {key for key, pool in self._pools.items() if pool.policy == policy}
        known_already = {name for name, each in asked if each.key() in same}
        mine, rest = (
            desired.model_copy(update={"services": {name: desired.services[name] for name in names}})
            for names in (known_already, dict(asked).keys() - known_already)
        )
        trial = self._trial(rest)
        place = f"waiting for Consul at {settings_of(desired.consul).address()}"
        patience = asyncio.get_running_loop().call_later(_PATIENCE_S, self._tell, place)
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(trial.run())
            async with asyncio.TaskGroup() as waits:
                followed = waits.create_task(self.settled(mine, timeout_s))
                found = waits.create_task(trial.settled(rest, timeout_s))
            patience.cancel()
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

    def _trial(self, desired: Desired) -> ConsulDiscovery:
        """Return another discovery that follows this lb.yaml with what is known here; SettingsError as for `follow`."""
        trial = ConsulDiscovery(
            lambda: None,
            self._tell,
            answers=self._answers,
            pace=replace(self._pace, pulse_s=0.0),
            runtime=self._runtime,
        )
        trial.restore({"version": SAVED_VERSION, "pools": {**self._restored, **self._memory()}})
        trial.active = True
        trial.follow(desired)
        for key, pool in trial._pools.items():
            if key in self._pools:
                pool.recall(self._pools[key])
        return trial

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Begin with what `saved` returned in an earlier life, as far as it still matters; never raises for it."""
        self._earlier, pools = saved, saved.get("pools")
        if saved.get("version") != SAVED_VERSION or not isinstance(pools, dict):
            return
        self._restored = {key: value for key, value in pools.items() if isinstance(value, dict)}
        for key, pool in self._pools.items():
            pool.restore(self._restored.pop(key, {}))

    def release(self) -> None:
        """Let what the guard holds go."""
        for pool in self._pools.values():
            pool.release()
        self._note(self._pools.values())

    async def settled(self, desired: Desired, timeout_s: float) -> dict[str, Pool]:
        """Return what is known of those of the services that are followed, once a moment longer would tell nothing new.

        Raises:
            SettingsError: A query cannot be used.
        """
        keys = {service: selection.key() for service, selection in selections_of(desired).items()}
        pools = {service: self._pools[key] for service, key in keys.items() if key in self._pools}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not all(pool.settled() for pool in pools.values()):
                    await self._advanced.wait()
        return pools

    def discovered(self) -> Mapping[str, Sequence[Backend]]:
        """Return the last known good backends by service, sorted by id; services without any yet are missing."""
        return {
            service: pool.backends
            for pool in self._pools.values()
            if pool.backends is not None
            for service in pool.services
        }

    def doubts(self) -> dict[str, str]:
        """Return, by service, why nothing is known of it, or something else than Consul shows."""
        told = [(pool, doubt(pool)) for pool in self._pools.values()]
        return {service: why for pool, why in told if why is not None for service in pool.services}

    def saved(self) -> dict[str, Any]:
        """Return what `restore` takes: JSON, without secrets."""
        return {"version": SAVED_VERSION, "pools": self._memory()} if self.active else dict(self._earlier)

    def _memory(self) -> dict[str, Any]:
        return {key: pool.saved() for key, pool in self._pools.items() if pool.backends is not None}

    def status(self) -> list[dict[str, Any]]:
        """Return the status of every selection, sorted by name."""
        rows = [pool_status(pool, self._runtime) for pool in self._pools.values()]
        return with_rejected(sorted(rows, key=lambda row: (row["name"], row["services"])), self.rejected)

    async def run(self) -> None:
        """Watch until cancelled; leaves no connection behind.

        Raises:
            ConsulError: The client library cannot be used (in an exception group).
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watches.run(), name="consul watches")
            while True:
                self._advance()
                due = min((pool.due for pool in self._pools.values() if pool.due is not None), default=None)
                pause_s = None if due is None else max(0.0, due - self._runtime.clock())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._wake.wait()
                self._wake.clear()

    def _note(self, pools: Iterable[Pool]) -> None:
        """Have these pools looked at."""
        self._news.update(pools)
        self._wake.set()

    def _advance(self) -> None:
        """Publish what is due in the pools that have news or whose time has come."""
        now = self._runtime.clock()
        changed = False
        for pool in self._pools.values():
            if pool in self._news or (pool.due is not None and pool.due <= now):
                changed |= pool.advance()
                note_state(pool, now)
        self._news.clear()
        self._advanced.set()
        self._advanced = asyncio.Event()
        if changed:
            self._on_change()


def _policy_of(guard: Guard) -> GuardPolicy:
    return GuardPolicy(
        max_shrink=guard.max_shrink,
        allow_empty=guard.allow_empty,
        min_backends=guard.min_backends,
        hold_s=guard.hold,
        absent_s=guard.absent_ttl,
    )
