"""The watched lb.yaml in the daemon, in a file or a key: its content is taken, or it is shown why not.

Theory of operation:

1. A content that is wrong waits for another content.
2. Whatever else is in its way (an address that somebody else has, a data plane that starts, a full table of descriptors)
   may go without a sign, so the content is tried again with growing pauses, until it is taken or another one comes.
3. What somebody applies meanwhile is the newer word: it holds until the file changes.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from controlplane.core.arrival import TRIED_AGAIN
from controlplane.core.backoff import Backoff
from controlplane.desired.location import Home
from controlplane.errors import ControlError, InputError
from controlplane.operations.controller import Controller
from controlplane.operations.options import ApplyOptions, Origin, now_text


@dataclass(frozen=True, slots=True)
class _Refused:
    """The newest content, while something else than itself is in its way."""

    raw: bytes
    forced: bool
    note: str
    error: ControlError
    instead: dict[str, Any] | None
    """The lb.yaml that was taken before."""


class WatchedFile:
    """Takes the content of one home through the controller."""

    def __init__(
        self, home: Home, controller: Controller, log: Callable[[str], None], backoff: Backoff | None = None
    ) -> None:
        self.home = home
        self.config_error: dict[str, Any] | None = None
        """`{path, message, details, since}`; None: the newest content was taken."""
        self.newest: str | None = None
        """The SHA-256 of the newest content, taken or not; None: there was none yet."""
        self._controller = controller
        self._log = log
        self._since = now_text()
        self._backoff = backoff or Backoff(base_s=1.0, least=0.5)
        self._turn = asyncio.Lock()
        """A new content and another try of the last one never overlap."""
        self._refused: _Refused | None = None
        self._is_refused = asyncio.Event()

    def force(self) -> None:
        """Read now, and take the content even if it is the same."""
        self.home.force()

    async def run(self) -> None:
        """Read once, then watch until cancelled.

        Raises:
            ControlError: It cannot be watched at all (in an exception group).
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._try_again())
            await self.home.run(self.content, self.error)

    async def content(self, raw: bytes, forced: bool, note: str = "", /) -> None:  # noqa: FBT001 - the source's callback
        """Take the file's new content, unless it is what was taken last and something was applied since."""
        self.newest = hashlib.sha256(raw).hexdigest()
        async with self._turn:
            self._backoff.succeed()
            await self._take(raw, note, forced=forced)

    async def _try_again(self) -> None:
        """Take what was refused for another reason than itself, until cancelled."""
        while True:
            await self._is_refused.wait()
            await asyncio.sleep(self._backoff.fail(random.random))
            async with self._turn:
                refused = self._refused
                if refused is None:
                    continue
                if self._controller.accepted.state.document is refused.instead:
                    await self._take(refused.raw, refused.note, forced=refused.forced)
                else:
                    self._waits_for(None)
                    self._show(refused.error, f"when the {self.home.word} changes, or at SIGHUP")

    async def _take(self, raw: bytes, note: str, *, forced: bool) -> None:
        self._waits_for(None)
        before = self._controller.accepted.state.document
        digest = hashlib.sha256(raw).hexdigest()
        if digest == self._controller.accepted.state.file_digest and not forced:
            self._fine()
            return
        try:
            read = self._controller.reader.text
            proposal = await asyncio.to_thread(read, raw, self.home.place, self.home.folder)
            origin = Origin(f"{self.home.name}, {note}" if note else self.home.name, "file")
            await self._controller.take(proposal, ApplyOptions(), origin, file_digest=digest)
        except ControlError as error:
            self._show(error)
            if not error.blames_content:
                self._waits_for(_Refused(raw, forced, note, error, before))
        else:
            self._fine()

    def _waits_for(self, refused: _Refused | None) -> None:
        self._refused = refused
        if refused is None:
            self._is_refused.clear()
        else:
            self._is_refused.set()

    async def error(self, error: ControlError) -> None:
        """Show why the file cannot be read; what was taken before goes on."""
        async with self._turn:
            self._waits_for(None)  # whoever watches it reads it again
            self._show(error)

    def _show(self, error: ControlError, when: str | None = None) -> None:
        when = when or f"by itself, at least every {self._backoff.cap_s:g} s"
        message = f"{error}" if error.blames_content else f"{error}; {TRIED_AGAIN} {when}"
        if self.config_error is not None and self.config_error["message"] == message:
            return  # since when it is so is worth more than when it was tried last
        self._since = now_text()
        self.config_error = {
            "path": self.home.place,
            "message": message,
            "details": list(error.problems) if isinstance(error, InputError) else [],
            "since": self._since,
        }
        self._log(f"{self.home.place} is not taken, what ran before still runs: {message}")

    def _fine(self) -> None:
        if self.config_error is not None:
            self.config_error = None
            self._since = now_text()
            self._log(f"{self.home.place} is taken again")

    def source(self) -> dict[str, Any]:
        """Return its row in the status: `stale` while somebody has applied something else."""
        state = self._controller.accepted.state
        row = {"name": self.home.name, "state": "ok", "since": self._since, "last_error": None}
        row |= self.home.status()
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
