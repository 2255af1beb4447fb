"""Watches lb.yaml by the signature of the file that its path leads to, twice a second.

Only this sees every way in which a file is replaced: rename, symbolic links anywhere above it, a rename that
keeps size and time, and writes on network and overlay file systems. inotify misses four of them, and a look
costs 2 us.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from controlplane.core.backoff import Backoff
from controlplane.desired.document import read_file
from controlplane.errors import InputError
from schemas.http.reloaded import Signature, signature

__all__ = ["FileSource", "Settling"]

PERIOD_S: Final = 0.5


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
    """Reads a file whenever it has changed, and hands its content on if that is new.

    What the system did not let be read is tried again with growing pauses: a full table of descriptors or a server
    of files that was away leaves no other signature when it is over.

    Args:
        path: The file.
        on_content: Takes its bytes, and whether somebody asked for them with `force`.
        on_error: Takes why it cannot be read, once for each reason; what was read before still holds.
        period_s: Seconds between two looks.
    """

    def __init__(
        self,
        path: Path,
        *,
        on_content: Callable[[bytes, bool], Awaitable[None]],
        on_error: Callable[[InputError], Awaitable[None]],
        period_s: float = PERIOD_S,
    ) -> None:
        self.path = path
        self._on_content = on_content
        self._on_error = on_error
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
        """Return what status should say besides the errors that `on_error` was told: nothing."""
        return {}

    async def run(self) -> None:
        """Read once, then watch until cancelled."""
        settling = Settling(await asyncio.to_thread(signature, self.path))
        await self._read(forced=False)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._period_s):
                    await self._forced.wait()
            seen = await asyncio.to_thread(signature, self.path)
            changed, forced = settling.look(seen), self._forced.is_set()
            self._forced.clear()
            if changed or forced or self._is_due():
                await self._read(forced=forced)

    def _is_due(self) -> bool:
        return self._again_at is not None and asyncio.get_running_loop().time() >= self._again_at

    async def _read(self, *, forced: bool) -> None:
        self._again_at = None
        try:
            raw = await asyncio.to_thread(read_file, self.path)
        except InputError as error:
            # Gone is not empty: what runs goes on. The next content counts, even if it is the last one again.
            self._digest = None
            if not error.blames_content:
                pause_s = self._backoff.fail(lambda: 1.0)
                self._again_at = asyncio.get_running_loop().time() + pause_s
            if forced or str(error) != self._told:
                self._told = str(error)
                await self._on_error(error)
            return
        self._told = None
        self._backoff.succeed()
        digest = hashlib.sha256(raw).hexdigest()
        if forced or digest != self._digest:
            self._digest = digest
            await self._on_content(raw, forced)
