"""What runs goes to disk; what could not be saved is tried again until it is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from schemas.system.ownership import explain_error

if TYPE_CHECKING:
    from dataplane.node.snapshot_file import SnapshotStore
    from dataplane.telemetry.events import Events
    from schemas.snapshot import Snapshot

__all__ = ["RETRY_S", "Saving"]

RETRY_S: Final = 5.0
_TODO: Final = (
    f"a restart would run the snapshot saved before; see to the cause: it is tried again every {RETRY_S:g} s"
)


class Saving:
    """Saves snapshots, and knows whether the last one is on disk.

    Args:
        store: Where they go; None: nowhere, and that is as it should be.
        events: Takes `snapshot_not_saved`, once for each snapshot, and `snapshot_saved` when that is over.
    """

    def __init__(self, store: SnapshotStore | None, events: Events) -> None:
        self._store = store
        self._events = events
        self._unsaved: Snapshot | None = None
        self._needed = asyncio.Event()

    @property
    def saved(self) -> bool:
        """Whether a restart would find what runs."""
        return self._unsaved is None

    def owe(self, snapshot: Snapshot) -> None:
        """Take over from a process that could not save what it ran."""
        self._unsaved = snapshot
        self._needed.set()

    async def save(self, snapshot: Snapshot) -> None:
        """Save a snapshot, now or later."""
        if self._store is None:
            return
        pieces: list[str] = []
        for piece in snapshot.text():
            pieces.append(piece)
            await asyncio.sleep(0)
        before, path = self._unsaved, str(self._store.path)
        try:
            await asyncio.to_thread(self._store.save, pieces)
        except OSError as error:
            self.owe(snapshot)
            if before is not snapshot:
                cause = explain_error(self._store.path, error)
                self._events.emit("snapshot_not_saved", path=path, cause=cause, todo=_TODO)
            return
        self._unsaved = None
        self._needed.clear()
        if before is not None:
            self._events.emit("snapshot_saved", path=path, generation=snapshot.generation)

    async def again(self) -> None:
        """Save what could not be saved, if it still is not."""
        if self._unsaved is not None:
            await self.save(self._unsaved)

    async def due(self) -> None:
        """Wait until something has to be saved again."""
        await self._needed.wait()
        await asyncio.sleep(RETRY_S)
