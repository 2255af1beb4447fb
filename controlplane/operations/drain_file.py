"""Where it is written down that a node is taken out: `<state dir>/control/node.json`, which needs no daemon.

It is read by whoever wants to know, whenever they want to know, so that a change is seen at the next look; and outlives
every process and the machine's power.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Final

from controlplane.core.drain import Drain, Turn, parse
from controlplane.errors import BusyError, HeldBackError, StoreError
from controlplane.operations.options import now_text
from schemas.system.locks import LockedError, lock
from schemas.system.ownership import explain_error, make_directory, open_or_make, replace_file, sync_directory

_LOCK_S: Final = 5.0
_LOCK_POLL_S: Final = 0.02


class DrainFile:
    """The record in a state directory. Blocking: a change takes some 10 ms of a busy disk."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "control" / "node.json"

    def read(self) -> Drain:
        """Read it; nobody has ever taken the node out if there is none.

        StoreError: it cannot be read, or is damaged; the message says what to do.
        """
        try:
            with self.path.open("rb") as file:
                return parse(file.read(1 << 16))
        except (FileNotFoundError, NotADirectoryError):
            return Drain()
        except OSError as error:
            raise StoreError(f"{self.path}: {explain_error(self.path, error)}") from error
        except ValueError as error:
            raise StoreError(
                f"{self.path}: damaged: {error}; to write it anew: lb-control node enable, or node drain"
            ) from error

    def seen(self) -> Drain | str:
        """Read it as `readiness` wants it: why it cannot be read is a value."""
        try:
            return self.read()
        except StoreError as error:
            return str(error)

    def report(self) -> dict[str, Any] | None:
        """Return `{phase, by, since, error}` for a node's status; None: the node is enabled."""
        seen = self.seen()
        if isinstance(seen, str):
            return {"phase": None, "by": None, "since": None, "error": seen}
        told = seen.report()
        return None if told is None else {**told, "error": None}

    def turn(self, turn: Turn, by: str) -> Drain:
        """Do something to the node; return what is on record then.

        Raises:
            HeldBackError: Somebody else has turned it meanwhile.
            StoreError: It cannot be written; what was there before holds.
        """
        lock_path = self.path.with_suffix(".lock")
        try:
            make_directory(self.path.parent)
            handle = open_or_make(lock_path, os.O_RDWR | os.O_NOFOLLOW)
        except OSError as error:
            raise StoreError(f"{lock_path}: {explain_error(lock_path, error)}") from error
        try:
            _take(handle, str(self.path))
            before = self._before(turn)
            try:
                after = before.turned(turn, by, now_text())
            except KeyError:
                raise HeldBackError(
                    f"meanwhile {before.by} has made this node {before.phase} (since {before.since})"
                ) from None
            if after is not before or turn is Turn.ENABLE:  # also mends a damaged record
                self._write(after)
            return after
        finally:
            os.close(handle)

    def _before(self, turn: Turn) -> Drain:
        """Return what holds now. A command's first turn mends a record that is damaged."""
        try:
            return self.read()
        except StoreError:
            if turn in {Turn.LOWER, Turn.ENABLE}:
                return Drain()
            raise

    def _write(self, drain: Drain) -> None:
        try:
            replace_file(self.path, [drain.encode()])
            sync_directory(self.path.parent)
        except OSError as error:
            raise StoreError(
                f"{self.path}: {explain_error(self.path, error)}; what was there before holds"
            ) from error


def _take(handle: int, what: str) -> None:
    deadline = time.monotonic() + _LOCK_S
    while True:
        try:
            return lock(handle)
        except LockedError as error:
            if time.monotonic() >= deadline:
                raise BusyError(what, error.pid) from error
            time.sleep(_LOCK_POLL_S)
