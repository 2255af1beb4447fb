"""What was taken is written down; what cannot be written is tried again with growing pauses, until it is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final

from controlplane.core.backoff import Backoff
from controlplane.errors import StoreError
from controlplane.store import Entry, State, Store

__all__ = ["Keeping"]

_MOST_OWED: Final = 200
"""Entries of the history that wait; of more the oldest is forgotten, as the history itself does."""


class Keeping:
    """Writes the state and the history.

    Args:
        store: Where to.
        log: Told what an operator has to know.
        backoff: The pauses between tries.
        held: Write only when `write` says so: when it is known whether what was taken came true.
    """

    def __init__(
        self,
        store: Store,
        log: Callable[[str], None],
        backoff: Backoff | None = None,
        *,
        held: bool = False,
    ) -> None:
        self.error: str | None = None
        """Why something is not written down; None: all of it is."""
        self.store = store
        self._held = held
        self._log = log
        self._backoff = backoff or Backoff(base_s=1.0, least=0.5)
        self._state: State | None = None
        self._entries: list[tuple[Entry, dict[str, Any]]] = []
        self._owes = asyncio.Event()
        self._turn = asyncio.Lock()

    async def keep(
        self, state: State, entry: Entry | None = None, document: dict[str, Any] | None = None
    ) -> list[str]:
        """Write a state down, and its entry of the history if it has one; return what an operator should know if it failed."""
        self._state = state
        if entry is not None:
            self._entries = [*self._entries, (entry, document or {})][-_MOST_OWED:]
        return [] if self._held else await self.write()

    async def run(self) -> None:
        """Try again what could not be written, until cancelled."""
        while True:
            await self._owes.wait()
            await asyncio.sleep(self._backoff.fail(random.random))
            await self.write()

    async def write(self) -> list[str]:
        """Write what is not written yet; return what an operator should know of it, if that fails."""
        async with self._turn:
            return await self._write()

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
        self._settle(warnings)
        return warnings

    def _settle(self, warnings: list[str]) -> None:
        """Note how it went."""
        if not self._entries and self._state is None:
            if self.error is not None:
                self._log("written down again")
            self.error = None
            self._backoff.succeed()
            self._owes.clear()
            return
        if self.error is None and warnings:
            self._log(warnings[-1])
        self.error = warnings[-1] if warnings else self.error
        self._owes.set()
