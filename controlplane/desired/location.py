"""Where a daemon's lb.yaml lives: in a file, or in a key of Consul's (`discovery.consul.key`) that several nodes can follow.

A file is watched by the signature of what its path leads to, twice a second. Only this sees every way in which a file is
replaced: rename, symbolic links anywhere above it, a rename that keeps size and time, and writes on network and overlay file
systems. inotify misses four of them, and a look costs 2 us.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Protocol

from controlplane.core.backoff import Backoff
from controlplane.desired.document import read_file
from controlplane.errors import ControlError, InputError
from schemas.http.reloaded import Signature, signature

PERIOD_S: Final = 0.5

OnError = Callable[[ControlError], Awaitable[None]]


class OnContent(Protocol):
    """Takes a new content."""

    async def __call__(self, raw: bytes, forced: bool, note: str = "", /) -> None:  # noqa: FBT001 - as `Home.run` says
        """Take it.

        Args:
            raw: The content.
            forced: Somebody asked for it with `force`.
            note: Where it comes from, if not just from where the home is.
        """


class Home(Protocol):
    """One such place, and what watches it."""

    word: str
    """What it is: `file` or `key`."""
    name: str
    """What status and history call it."""
    place: str
    """What messages about its content call it, as a command would."""
    folder: Path | None
    """What relative paths in the content are relative to; None: it has none (`schemas.files.at_folder`)."""

    def force(self) -> None:
        """Read now, and hand the content on even if it is the same."""

    def status(self) -> dict[str, Any]:
        """Return how the watching fares, in the words of every source; empty: nothing that `on_error` was not told."""

    async def run(self, on_content: OnContent, on_error: OnError, /) -> None:
        """Read once, then watch until cancelled.

        Args:
            on_content: Takes every new content, and whether somebody asked for it with `force`.
            on_error: Takes why it cannot be read, once for each reason, unless `status` tells; what was read before still
                holds.
        """


class Settling:
    """Tells when a file has changed and come to rest: the same new signature at two looks in a row.

    A writer that pauses in the middle is waited for; a change back to what was read last is none.
    """

    def __init__(self, first: Signature) -> None:
        self._read = first
        self._candidate = first

    def look(self, now: Signature) -> bool:
        """Take a look in; True: read it now."""
        if now == self._read or now != self._candidate:
            self._candidate = now
            return False
        self._read = now
        return True


class FileSource:
    """Reads a file whenever it has changed, and hands its content on if that is new; see `Home`.

    What the system did not let be read is tried again with growing pauses: a full table of descriptors or a server
    of files that was away leaves no other signature when it is over.
    """

    word = "file"

    def __init__(self, path: Path, *, period_s: float = PERIOD_S) -> None:
        self.name = f"file {path}"
        self.place = str(path)
        self.folder: Path | None = path.parent
        self._path = path
        self._period_s = period_s
        self._forced = asyncio.Event()
        self._digest: str | None = None
        self._told: str | None = None
        self._backoff = Backoff(base_s=period_s, least=1.0)
        self._again_at: float | None = None

    def force(self) -> None:
        """Read now, whatever the signature says, and hand the content on even if it is the same."""
        self._forced.set()

    def status(self) -> dict[str, Any]:
        """Return nothing: `on_error` was told all."""
        return {}

    async def run(self, on_content: OnContent, on_error: OnError) -> None:
        """Read once, then watch until cancelled."""
        settling = Settling(await asyncio.to_thread(signature, self._path))
        await self._read(on_content, on_error, forced=False)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._period_s):
                    await self._forced.wait()
            seen = await asyncio.to_thread(signature, self._path)
            changed, forced = settling.look(seen), self._forced.is_set()
            self._forced.clear()
            if changed or forced or self._is_due():
                await self._read(on_content, on_error, forced=forced)

    def _is_due(self) -> bool:
        return self._again_at is not None and asyncio.get_running_loop().time() >= self._again_at

    async def _read(self, on_content: OnContent, on_error: OnError, *, forced: bool) -> None:
        self._again_at = None
        try:
            raw = await asyncio.to_thread(read_file, self._path)
        except InputError as error:
            # Gone is not empty: what runs goes on. The next content counts, even if it is the last one again.
            self._digest = None
            if not error.blames_content:
                pause_s = self._backoff.fail(lambda: 1.0)
                self._again_at = asyncio.get_running_loop().time() + pause_s
            if forced or str(error) != self._told:
                self._told = str(error)
                await on_error(error)
            return
        self._told = None
        self._backoff.succeed()
        digest = hashlib.sha256(raw).hexdigest()
        if forced or digest != self._digest:
            self._digest = digest
            await on_content(raw, forced)
