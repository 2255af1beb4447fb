"""The watched lb.yaml in the daemon, in a file or a key: its content is taken, or the error is shown until it changes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from controlplane.acceptance import ApplyOptions, Origin, now_text
from controlplane.controller import Controller
from controlplane.errors import ControlError, InputError
from controlplane.proposal import Proposal

if TYPE_CHECKING:
    from controlplane.home import Home

__all__ = ["WatchedFile"]


class WatchedFile:
    """Takes the content of one home through the controller."""

    def __init__(self, home: Home, controller: Controller, log: Callable[[str], None]) -> None:
        self.home = home
        self.config_error: dict[str, Any] | None = None
        """`{path, message, details, since}`; None: the newest content was taken."""
        self._controller = controller
        self._log = log
        self._since = now_text()
        self._watcher = home.watcher(self.content, self.error)

    def force(self) -> None:
        """Read now, and take the content even if it is the same."""
        self._watcher.force()

    async def run(self) -> None:
        """Read once, then watch until cancelled.

        Raises:
            ControlError: It cannot be watched at all (in an exception group).
        """
        await self._watcher.run()

    async def content(self, raw: bytes, forced: bool) -> None:  # noqa: FBT001 - the source's callback
        """Take the file's new content, unless it is what was taken last and something was applied since."""
        digest = hashlib.sha256(raw).hexdigest()
        state = self._controller.state
        if digest == state.file_digest and not forced:
            self._fine()
            return
        try:
            proposal = await asyncio.to_thread(Proposal.of_text, raw, self.home.place, self.home.folder)
            origin = Origin(self.home.name, "file")
            await self._controller.take(proposal, ApplyOptions(), origin, file_digest=digest)
        except ControlError as error:
            await self.error(error)
        else:
            self._fine()

    async def error(self, error: ControlError) -> None:
        """Show why the file's content does not hold; what was taken before goes on."""
        details = list(error.problems) if isinstance(error, InputError) else []
        # The content is valid: nothing but the wish to try again would make it be read again.
        again = "" if details else f"; it is tried again when the {self.home.word} changes, or at SIGHUP"
        self.config_error = {
            "path": self.home.place,
            "message": f"{error}{again}",
            "details": details,
            "since": now_text(),
        }
        self._since = self.config_error["since"]
        self._log(f"{self.home.place} is not taken, what ran before still runs: {error}{again}")

    def _fine(self) -> None:
        if self.config_error is not None:
            self.config_error = None
            self._since = now_text()
            self._log(f"{self.home.place} is taken again")

    def source(self) -> dict[str, Any]:
        """Return its row in the status: `stale` while somebody has applied something else."""
        state = self._controller.state
        row = {"name": self.home.name, "state": "ok", "since": self._since, "last_error": None}
        row |= self._watcher.status()
        if self.config_error is not None:
            return row | {
                "state": "error",
                "since": self.config_error["since"],
                "last_error": self.config_error["message"],
            }
        if state.applied_by is not None and row["state"] == "ok":
            note = f"what {state.applied_by} applied holds until the {self.home.word} changes"
            row |= {"state": "stale", "since": state.applied_since, "note": note}
        return row
