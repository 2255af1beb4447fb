"""What was accepted last: in memory and on disk, and wished of the fleet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from controlplane.core.rollout import next_generation
from controlplane.dataplanes.fleet import Fleet
from controlplane.errors import StoreError
from controlplane.operations.options import Origin, now_text
from controlplane.operations.rules import entry_of, rollback_entry, wish_of
from controlplane.operations.saving import Keeping
from controlplane.store import Entry, State, digest_of

__all__ = ["Accepted"]


class Accepted:
    """What the fleet should run, and how that came about."""

    def __init__(
        self,
        keeping: Keeping,
        fleet: Fleet,
        on_event: Callable[[dict[str, Any]], None],
        log: Callable[[str], None],
    ) -> None:
        self.state = State()
        self.lost: str | None = None
        """Why what was written down could not be read at the start; None: it was."""
        self.keeping = keeping
        self._fleet = fleet
        self._on_event = on_event
        self._log = log

    async def load(self) -> None:
        """Read what was written down; nothing is wished."""
        store = self.keeping.store
        try:
            self.state = await asyncio.to_thread(store.load)
        except StoreError as error:
            self.lost = (
                f"overrides and the last snapshot are unknown: {error}; say again which backends are to be drained, "
                "disabled or weighted otherwise"
            )
            self._log(self.lost)
            self.state = await asyncio.to_thread(store.recover)

    async def services(self) -> dict[str, Any]:
        """Return the services that should run; before anything was accepted, those of the newest data plane."""
        return self.state.services if self.state.document is not None else await self._fleet.services()

    def next_generation(self, digest: str) -> int:
        """Return the generation for a content of this hash: above all that run, unless it runs already."""
        return next_generation(self._fleet.running(), digest, floor=(self.state.generation, self.state.hash))

    async def accept(self, after: State, origin: Origin) -> list[str]:
        """Write a new state down, and wish it; return what an operator should know if it could not be written."""
        before, self.state = self.state, after
        again = origin.kind == "resume" and after.hash == before.hash
        entry = None if again else entry_of(before, after, origin, now_text())
        warnings = await self.keeping.keep(after, entry, after.document)
        self.wish()
        what = {"generation": after.generation, "hash": after.hash, "by": origin.by}
        self._on_event({"type": "generation", **what})
        return warnings

    def wish(self) -> None:
        """Tell the fleet what to run, if anything was accepted."""
        if self.state.document is not None:
            self._fleet.want(wish_of(self.state))

    async def snapshot(self) -> dict[str, Any]:
        """Return what should run; before anything was accepted, what the newest data plane runs."""
        state, services = self.state, await self.services()
        return {"version": 1, "generation": state.generation, "hash": state.hash, "services": services}

    async def history(self) -> dict[str, Any]:
        """Return every known generation, the oldest first, and what cannot be read."""
        return (await asyncio.to_thread(self.keeping.store.history)).report()

    async def earlier(self, generation: int | None) -> tuple[Entry, dict[str, Any]]:
        """Return an entry of the history and its lb.yaml; None: the newest that says something else than now.

        Raises:
            UnknownError: There is none.
            StoreError: It cannot be read.
        """
        store = self.keeping.store
        history = await asyncio.to_thread(store.history)
        entry = rollback_entry(history, digest_of(self.state.document), generation)
        return entry, await asyncio.to_thread(store.document, entry.document)
