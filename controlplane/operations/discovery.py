"""The daemon's side of discovery: loaded only when a service asks for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from controlplane.core.instances import Remark, with_rejected
from controlplane.desired.document import Proposal
from controlplane.discovery.found import Found
from schemas.snapshot import Backend

if TYPE_CHECKING:
    from controlplane.discovery.consul.discovery import ConsulDiscovery

__all__ = ["Discovering"]

_PATIENCE_S: Final = 1.0
"""After which it is said what is waited for."""


class Discovering:
    """The source of what is discovered, if one is needed."""

    def __init__(self, on_change: Callable[[], None], tell: Callable[[str], None]) -> None:
        self.healthy: frozenset[tuple[str, str]] = frozenset()
        """Service and id of the backends that pass the data planes' own checks, as last seen."""
        self._on_change = on_change
        self._tell = tell
        self._source: ConsulDiscovery | None = None
        self._needed = asyncio.Event()
        self._restored: Mapping[str, Any] = {}
        self.rejected: Mapping[str, Sequence[Remark]] = {}
        """By service: what was found and is not used, since it leads back into the balancer."""

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Begin with what `saved` returned in an earlier life."""
        self._restored = saved

    def follow(self, proposal: Proposal, found: Found | None = None) -> None:
        """Discover what this lb.yaml asks for, and nothing else; begin with what `look` has found for it."""
        if self._source is None and not proposal.queries():
            self._restored = {}  # what is not followed is forgotten, as the source does it
            return
        source = self._source or self._opened()
        if found is not None:
            source.restore(found.saved)
        source.follow(proposal.desired)
        self._source = source
        self._needed.set()

    def _opened(self) -> ConsulDiscovery:
        from controlplane.discovery.consul.discovery import ConsulDiscovery  # noqa: PLC0415 - nothing needs Consul otherwise

        source = ConsulDiscovery(self._on_change, answers=lambda *backend: backend in self.healthy)
        source.restore(self._restored)
        return source

    async def look(self, proposal: Proposal, timeout_s: float, *, released: bool = False) -> Found:
        """Find the backends that an lb.yaml would have, as if it were followed; nothing changes."""
        if not proposal.queries():
            return Found()
        source = self._source or self._opened()
        with self._patience(source.place(proposal.desired)):
            return await source.look(proposal.desired, timeout_s, released=released)

    @contextlib.contextmanager
    def _patience(self, place: str) -> Iterator[None]:
        """Say what is waited for, if it takes long."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(_PATIENCE_S, self._tell, f"waiting for {place}")
        try:
            yield
        finally:
            timer.cancel()

    def release(self) -> None:
        """Let go what the guard holds."""
        if self._source is not None:
            self._source.release()

    def discovered(self) -> Mapping[str, Sequence[Backend]]:
        """Return the last known good backends by service."""
        return {} if self._source is None else self._source.discovered()

    def doubts(self) -> Mapping[str, str]:
        """Return, by service, why nothing is known of it, or something else than Consul shows."""
        return {} if self._source is None else self._source.doubts()

    @property
    def active(self) -> bool:
        """Whether anything is discovered."""
        return self._source is not None

    def saved(self) -> dict[str, Any]:
        """Return what `restore` takes."""
        return dict(self._restored) if self._source is None else self._source.saved()

    def status(self) -> list[dict[str, Any]]:
        """Return how each source fares."""
        return [] if self._source is None else with_rejected(self._source.status(), self.rejected)

    async def run(self) -> None:
        """Discover from when that is first needed, until cancelled."""
        await self._needed.wait()
        if self._source is not None:
            await self._source.run()
