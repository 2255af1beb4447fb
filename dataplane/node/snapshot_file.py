"""The last good snapshot on disk, so that a data plane starts with what it ran; it is tried again until it is there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from dataplane.telemetry.events import Events
from schemas.snapshot import Snapshot, Written, parse_snapshot
from schemas.system.ownership import explain_error, replace_file, sync_directory

RETRY_S: Final = 5.0
_TODO: Final = (
    f"a restart would run the snapshot saved before; see to the cause: it is tried again every {RETRY_S:g} s"
)


class SnapshotStore:
    """One file, replaced as a whole, which knows whether the last snapshot is in it."""

    def __init__(self, directory: Path, name: str, events: Events) -> None:
        self.path = directory / f"dataplane-{name}.json"
        self._events = events
        self._unsaved: Snapshot | None = None
        self._needed = asyncio.Event()

    @property
    def saved(self) -> bool:
        """Whether a restart would find what runs."""
        return self._unsaved is None

    def load(self) -> Snapshot | None:
        """Return the last good snapshot; None if none was ever saved.

        Raises:
            ValueError: The file is damaged.
            schemas.errors.InvalidDocument: It is of another version, or its hash does not fit.
            OSError: It cannot be read.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return parse_snapshot(json.loads(text))

    def owe(self, snapshot: Snapshot) -> None:
        """Take over from a process that could not save what it ran."""
        self._unsaved = snapshot
        self._needed.set()

    async def save(self, snapshot: Snapshot, written: Written | None = None) -> None:
        """Save a snapshot, now or later; a crash at any moment leaves the old file or the new one."""
        pieces: list[str] = []
        for piece in snapshot.text(written):
            pieces.append(piece)
            await asyncio.sleep(0)
        before, path = self._unsaved, str(self.path)
        try:
            await asyncio.to_thread(self._write, pieces)
        except OSError as error:
            self.owe(snapshot)
            if before is not snapshot:
                cause = explain_error(self.path, error)
                self._events.emit("snapshot_not_saved", path=path, cause=cause, todo=_TODO)
            return
        self._unsaved = None
        self._needed.clear()
        if before is not None:
            self._events.emit("snapshot_saved", path=path, generation=snapshot.generation)

    def _write(self, pieces: Iterable[str]) -> None:
        replace_file(self.path, (piece.encode() for piece in pieces))
        sync_directory(self.path.parent)

    async def again(self) -> None:
        """Save what could not be saved, if it still is not."""
        if self._unsaved is not None:
            await self.save(self._unsaved)

    async def due(self) -> None:
        """Wait until something has to be saved again."""
        await self._needed.wait()
        await asyncio.sleep(RETRY_S)
