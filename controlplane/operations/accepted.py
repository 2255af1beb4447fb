"""What was accepted last: in memory and on disk, and wished of the fleet.

What cannot be written is tried again with growing pauses, until it is.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from controlplane.core.backoff import Backoff
from controlplane.core.rollout import next_generation
from controlplane.dataplanes.fleet import Fleet
from controlplane.errors import StoreError
from controlplane.operations.options import Origin, now_text
from controlplane.operations.rules import entry_of, rollback_entry, wish_of
from controlplane.store import Entry, State, Store, digest_of

_MOST_OWED: Final = 200
"""Entries of the history that wait; of more the oldest is forgotten, as the history itself does."""


@dataclass(eq=False, slots=True)
class Keeping:
    """Writes the state and the history."""

    store: Store
    log: Callable[[str], None]
    """Told what an operator has to know."""
    backoff: Backoff = field(default_factory=lambda: Backoff(base_s=1.0, least=0.5))
    held: bool = False
    """Write only when `write` says so: when it is known whether what was taken came true."""
    error: str | None = None
    """Why something is not written down; None: all of it is."""
    _state: State | None = None
    _entries: list[tuple[Entry, dict[str, Any]]] = field(default_factory=list)
    _owes: asyncio.Event = field(default_factory=asyncio.Event)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def keep(self, state: State, entry: Entry | None = None) -> list[str]:
        """Write a state down, and its entry of the history if it has one; return what an operator should know if it failed."""
        self._state = state
        if entry is not None:
            self._entries = [*self._entries, (entry, state.document or {})][-_MOST_OWED:]
        return [] if self.held else await self.write()

    async def run(self) -> None:
        """Try again what could not be written, until cancelled."""
        while True:
            await self._owes.wait()
            await asyncio.sleep(self.backoff.fail(random.random))
            await self.write()

    async def write(self) -> list[str]:
        """Write what is not written yet; return what an operator should know of it, if that fails."""
        async with self._turn:
            warnings = await self._write()
            self._settle(warnings)
        return warnings

    async def _write(self) -> list[str]:
        warnings: list[str] = []
        while self._entries:
            try:
                await asyncio.to_thread(self.store.record, *self._entries[0])
            except StoreError as error:
                warnings.append(f"not written to the history: {error}")
                break
            del self._entries[0]
        state = self._state
        if state is not None:
            try:
                await asyncio.to_thread(self.store.save, state)
            except StoreError as error:
                warnings.append(f"not written down, so a restart forgets it: {error}")
            else:
                # Another one may have come while this one was written.
                self._state = None if self._state is state else self._state
        return warnings

    def _settle(self, warnings: list[str]) -> None:
        """Note how it went."""
        if not self._entries and self._state is None:
            if self.error is not None:
                self.log("written down again")
            self.error = None
            self.backoff.succeed()
            self._owes.clear()
            return
        if self.error is None and warnings:
            self.log(warnings[-1])
        self.error = warnings[-1] if warnings else self.error
        self._owes.set()


@dataclass(eq=False, slots=True)
class Accepted:
    """What the fleet should run, and how that came about."""

    keeping: Keeping
    fleet: Fleet
    on_event: Callable[[dict[str, Any]], None]
    log: Callable[[str], None]
    state: State = field(default_factory=State)
    lost: str | None = None
    """Why what was written down could not be read at the start; None: it was."""

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
            self.log(self.lost)
            self.state = await asyncio.to_thread(store.recover)

    async def services(self) -> dict[str, Any]:
        """Return the services that should run; before anything was accepted, those of the newest data plane."""
        return self.state.services if self.state.document is not None else await self.fleet.services()

    def next_generation(self, digest: str) -> int:
        """Return the generation for a content of this hash: above all that run, unless it runs already."""
        return next_generation(self.fleet.running(), digest, floor=(self.state.generation, self.state.hash))

    async def accept(self, after: State, origin: Origin) -> list[str]:
        """Write a new state down, and wish it; return what an operator should know if it could not be written."""
        before, self.state = self.state, after
        again = origin.kind == "resume" and after.hash == before.hash
        entry = None if again else entry_of(before, after, origin, now_text())
        warnings = await self.keeping.keep(after, entry)
        self.wish()
        what = {"generation": after.generation, "hash": after.hash, "by": origin.by}
        self.on_event({"type": "generation", **what})
        return warnings

    def wish(self) -> None:
        """Tell the fleet what to run, if anything was accepted."""
        if self.state.document is not None:
            self.fleet.want(wish_of(self.state))

    async def snapshot(self) -> dict[str, Any]:
        """Return what should run; before anything was accepted, what the newest data plane runs."""
        state, services = self.state, await self.services()
        return {"version": 1, "generation": state.generation, "hash": state.hash, "services": services}

    async def history(self) -> dict[str, Any]:
        """Return every known generation, the oldest first, and what cannot be read."""
        return (await asyncio.to_thread(self.keeping.store.history)).report()

    async def earlier(self, generation: int | None) -> tuple[Entry, dict[str, Any]]:
        """Return an entry of the history and its lb.yaml; None: the newest that says something else than now.

        UnknownError if there is none, StoreError if it cannot be read.
        """
        store = self.keeping.store
        history = await asyncio.to_thread(store.history)
        entry = rollback_entry(history, digest_of(self.state.document), generation)
        return entry, await asyncio.to_thread(store.document, entry.document)
