"""The last good snapshot on disk, so that a data plane starts with what it ran."""

from __future__ import annotations

import json
import os
import tempfile
from typing import TYPE_CHECKING

from schemas.snapshot import Snapshot, parse_snapshot
from schemas.system.ownership import give_to_owner, make_directory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["SnapshotStore"]


class SnapshotStore:
    """One file, replaced as a whole."""

    def __init__(self, directory: Path, name: str) -> None:
        self.path = directory / f"dataplane-{name}.json"

    def save(self, pieces: Sequence[str]) -> None:
        """Write a snapshot's JSON so that a crash at any moment leaves the old file or the new one.

        Raises:
            OSError: It could not be written; the old file is untouched.
        """
        directory = self.path.parent
        make_directory(directory)
        handle, temporary = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=directory)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                give_to_owner(handle, directory)
                file.writelines(pieces)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)  # noqa: PTH105 - both are names in one directory
        except BaseException:
            os.unlink(temporary)  # noqa: PTH108 - the same
            raise
        folder = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

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
