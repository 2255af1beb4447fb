"""The daemon's side of discovery: loaded only when a service asks for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from controlplane.core.instances import with_rejected

if TYPE_CHECKING:
    from controlplane.core.instances import Remark
    from controlplane.desired.document import Proposal
    from controlplane.discovery.consul.discovery import ConsulDiscovery
    from schemas.desired import Desired
    from schemas.snapshot import Backend

__all__ = ["Discovering", "Found"]


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
    """What `follow` begins with."""


class Discovering:
    """Consul, if it is needed.

    Args:
        on_change: Called after what is discovered has changed.
        answers: Tells whether a service's backend passes the data planes' own checks.
        tell: Told what is waited for, if that takes longer than somebody expects.
    """

    def __init__(
        self,
        on_change: Callable[[], None],
        answers: Callable[[str, str], bool],
        tell: Callable[[str], None],
    ) -> None:
        self._on_change = on_change
        self._answers = answers
        self._tell = tell
        self._consul: ConsulDiscovery | None = None
        self._needed = asyncio.Event()
        self._restored: Mapping[str, Any] = {}
        self.rejected: Mapping[str, Sequence[Remark]] = {}
        """By service: what was found and is not used, since it leads back into the balancer."""

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Begin with what `saved` returned in an earlier life."""
        self._restored = saved

    def follow(self, proposal: Proposal, found: Found | None = None) -> None:
        """Discover what this lb.yaml asks for, and nothing else.

        Args:
            proposal: It.
            found: What `look` has found for it, to begin with.

        Raises:
            ControlError: Its settings for Consul cannot be used; nothing has changed.
        """
        queries, consul = proposal.queries(), self._consul
        if consul is None:
            if not queries:
                return
            from controlplane.discovery.consul.discovery import ConsulDiscovery  # noqa: PLC0415 - nothing needs Consul otherwise

            consul = ConsulDiscovery(self._on_change, answers=self._answers)
            consul.restore(self._restored)
        if found is not None:
            consul.restore(found.saved)
        consul.update(proposal.desired.consul, proposal.desired.guard, queries)
        self._consul = consul
        self._needed.set()

    async def look(self, proposal: Proposal, timeout_s: float, *, released: bool = False) -> Found:
        """Find the backends that an lb.yaml would have, as if it were followed; nothing changes.

        What is followed already is known, and Consul is asked for the rest: in the same way, with the same memory and the
        same guard as when it is followed.

        Args:
            proposal: The lb.yaml.
            timeout_s: How long to wait for Consul at most.
            released: Believe Consul's word against the guard's.

        Raises:
            ControlError: Its settings for Consul cannot be used.
        """
        queries, desired = proposal.queries(), proposal.desired
        if not queries:
            return Found()
        from controlplane.discovery.consul.client import check_library  # noqa: PLC0415 - the same
        from controlplane.discovery.consul.discovery import ConsulDiscovery  # noqa: PLC0415 - nothing needs Consul otherwise
        from controlplane.discovery.consul.status import doubt  # noqa: PLC0415 - the same
        from controlplane.discovery.consul.watch import Pace  # noqa: PLC0415 - the same

        await check_library()

        followed = {} if self._consul is None else self._consul.pools(desired.consul, queries)
        trial = ConsulDiscovery(lambda: None, answers=self._answers, pace=Pace(pulse_s=0.0))
        trial.restore(self.saved())
        missing = {name: query for name, query in queries.items() if name not in followed}
        trial.update(desired.consul, desired.guard, missing)
        pools = {**followed, **trial.pools(desired.consul, missing)}
        async with self._patience(desired), asyncio.TaskGroup() as group:
            asking = group.create_task(trial.run())
            async with asyncio.TaskGroup() as waits:
                if self._consul is not None:
                    waits.create_task(self._consul.wait_settled(followed.values(), timeout_s))
                waits.create_task(
                    trial.wait_settled(trial.pools(desired.consul, missing).values(), timeout_s)
                )
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

    @contextlib.asynccontextmanager
    async def _patience(self, desired: Desired) -> AsyncIterator[None]:
        """Say what is waited for, if it takes long."""
        from controlplane.discovery.consul.config import settings_of  # noqa: PLC0415 - nothing needs Consul otherwise

        address = settings_of(desired.consul).address()
        timer = asyncio.get_running_loop().call_later(
            _PATIENCE_S, self._tell, f"waiting for Consul at {address}"
        )
        try:
            yield
        finally:
            timer.cancel()

    def release(self) -> None:
        """Let go what the guard holds."""
        if self._consul is not None:
            self._consul.release()

    def discovered(self) -> Mapping[str, Sequence[Backend]]:
        """Return the last known good backends by service."""
        return {} if self._consul is None else self._consul.discovered()

    def doubts(self) -> Mapping[str, str]:
        """Return, by service, why nothing is known of it, or something else than Consul shows."""
        return {} if self._consul is None else self._consul.doubts()

    @property
    def active(self) -> bool:
        """Whether anything is discovered."""
        return self._consul is not None

    def saved(self) -> dict[str, Any]:
        """Return what `restore` takes."""
        return dict(self._restored) if self._consul is None else self._consul.saved()

    def status(self) -> list[dict[str, Any]]:
        """Return how each source fares."""
        return [] if self._consul is None else with_rejected(self._consul.status(), self.rejected)

    async def run(self) -> None:
        """Watch Consul from when it is first needed, until cancelled."""
        await self._needed.wait()
        if self._consul is not None:
            await self._consul.run()
