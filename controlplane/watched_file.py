"""The watched lb.yaml in the daemon: its content is taken, or the error is shown until it changes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from controlplane.acceptance import ApplyOptions, Origin, now_text
from controlplane.controller import Controller
from controlplane.errors import ControlError, InputError
from controlplane.proposal import Proposal

__all__ = ["WatchedFile"]


class WatchedFile:
    """Takes the file's content through the controller. `path` None: nothing is watched."""

    def __init__(self, path: Path | None, controller: Controller, log: Callable[[str], None]) -> None:
        self.path = path
        self.config_error: dict[str, Any] | None = None
        """`{path, message, details, since}`; None: the newest content was taken."""
        self._controller = controller
        self._log = log
        self._since = now_text()

    async def content(self, raw: bytes, forced: bool) -> None:  # noqa: FBT001 - the source's callback
        """Take the file's new content, unless it is what was taken last and something was applied since."""
        digest = hashlib.sha256(raw).hexdigest()
        state = self._controller.state
        if digest == state.file_digest and not forced:
            self._fine()
            return
        try:
            proposal = await asyncio.to_thread(Proposal.of_text, raw, str(self.path), self._folder())
            origin = Origin(f"file {self.path}", "file")
            await self._controller.take(proposal, ApplyOptions(), origin, file_digest=digest)
        except ControlError as error:
            await self.error(error)
        else:
            self._fine()

    async def error(self, error: ControlError) -> None:
        """Show why the file's content does not hold; what was taken before goes on."""
        details = list(error.problems) if isinstance(error, InputError) else []
        self.config_error = {
            "path": str(self.path),
            "message": str(error),
            "details": details,
            "since": now_text(),
        }
        self._since = self.config_error["since"]
        self._log(f"{self.path} is not taken, what ran before still runs: {error}")

    def _fine(self) -> None:
        if self.config_error is not None:
            self.config_error = None
            self._since = now_text()

    def _folder(self) -> Path:
        return Path() if self.path is None else self.path.parent

    def source(self) -> list[dict[str, Any]]:
        """Return the file's row in the status: `stale` while somebody has applied something else."""
        if self.path is None:
            return []
        state = self._controller.state
        row = {
            "name": f"file {self.path}",
            "state": "ok",
            "since": self._since,
            "last_error": None,
        }
        if self.config_error is not None:
            row |= {"state": "error", "last_error": self.config_error["message"]}
        elif state.applied_by is not None:
            note = f"what {state.applied_by} applied holds until the file changes"
            row |= {"state": "stale", "since": state.applied_since, "note": note}
        return [row]
