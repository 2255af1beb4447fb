"""The daemon's side of discovery: loaded only when a service asks for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from controlplane.core.instances import with_rejected

if TYPE_CHECKING:
    from controlplane.core.instances import Remark
    from controlplane.proposal import Proposal
    from controlplane.sources.consul import ConsulDiscovery
    from schemas.snapshot import Backend

__all__ = ["Discovering"]


class Discovering:
    """Consul, if it is needed.

    Args:
        on_change: Called after what is discovered has changed.
        answers: Tells whether a service's backend passes the data planes' own checks.
    """

    def __init__(self, on_change: Callable[[], None], answers: Callable[[str, str], bool]) -> None:
        self._on_change = on_change
        self._answers = answers
        self._consul: ConsulDiscovery | None = None
        self._needed = asyncio.Event()
        self._news = asyncio.Event()
        self._restored: Mapping[str, Any] = {}
        self.rejected: Mapping[str, Sequence[Remark]] = {}
        """By service: what was found and is not used, since it leads back into the balancer."""

    def _changed(self) -> None:
        self._news.set()
        self._on_change()

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Begin with what `saved` returned in an earlier life."""
        self._restored = saved

    def follow(self, proposal: Proposal) -> None:
        """Discover what this lb.yaml asks for, and nothing else.

        Raises:
            ControlError: Its settings for Consul cannot be used; nothing has changed.
        """
        queries = proposal.queries()
        if self._consul is None:
            if not queries:
                return
            from controlplane.sources.consul import ConsulDiscovery  # noqa: PLC0415 - nothing needs Consul otherwise

            consul = ConsulDiscovery(self._changed, answers=self._answers)
            if self._restored:
                consul.restore(self._restored)
            consul.update(proposal.desired.consul, proposal.desired.guard, queries)
            self._consul = consul
            self._needed.set()
        else:
            self._consul.update(proposal.desired.consul, proposal.desired.guard, queries)

    async def wait_ready(self, timeout_s: float) -> None:
        """Wait until something is known of every service, but no longer than that."""
        if self._consul is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not self._consul.ready():
                    self._news.clear()
                    await self._news.wait()

    async def look(self, proposal: Proposal, timeout_s: float) -> Mapping[str, Sequence[Backend]]:
        """Return the backends that an lb.yaml would have; Consul is asked once for what is not followed yet.

        Raises:
            ControlError: Consul did not tell.
        """
        known = self.discovered()
        missing = {name: query for name, query in proposal.queries().items() if name not in known}
        if not missing:
            return known
        from controlplane.sources.consul import resolve_once  # noqa: PLC0415 - nothing needs Consul otherwise

        desired = proposal.desired
        found = await resolve_once(desired.consul, missing, timeout_s, allow_empty=desired.guard.allow_empty)
        return {**known, **found}

    def release(self) -> None:
        """Let go what the guard holds."""
        if self._consul is not None:
            self._consul.release(None)

    def discovered(self) -> Mapping[str, Sequence[Backend]]:
        """Return the last known good backends by service."""
        return {} if self._consul is None else self._consul.discovered()

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
