"""What has just happened, for whoever is watching."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final

__all__ = ["Events"]

_KEPT: Final = 256
"""For one slow reader; then it misses the oldest. As many are remembered for readers who come later."""


class Events:
    """Hands events to every reader; never waits for one."""

    def __init__(self) -> None:
        self._readers: set[asyncio.Queue[dict[str, Any] | None]] = set()
        self._remembered: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._ended = False

    def publish(self, event: dict[str, Any], *, remember: bool = True) -> None:
        """Tell everybody who follows, and if it is to be remembered, who will."""
        if remember:
            self._remembered.append(event)
        for queue in self._readers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    def end(self) -> None:
        """Let every reader finish: an open stream would hold up the server's end."""
        self._ended = True
        for queue in self._readers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)

    async def follow(
        self, heartbeat_s: float, *, remembered: bool = False
    ) -> AsyncIterator[dict[str, Any] | None]:
        """Yield events, first those that are remembered if asked; None when nothing has happened for `heartbeat_s`."""
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(_KEPT)
        for known in self._remembered if remembered else ():
            queue.put_nowait(known)
        self._readers.add(queue)
        try:
            while not self._ended:
                event = None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(heartbeat_s):
                        event = await queue.get()
                if not self._ended:
                    yield event
        finally:
            self._readers.discard(queue)
