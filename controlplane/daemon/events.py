"""What has just happened, here and on the data planes, for whoever is watching.

Theory of operation:

1. Whoever speaks to a data plane holds its event stream open as well, and reconnects after a pause.
2. A data plane remembers its latest events, and is asked for all of them at each connection: what happened
   while nobody was connected, or before the daemon started, is told as well.
3. What was told already is known by its id, which is of one process, and its stamp: data planes of before had ids
   that began again with each process. Nothing is ordered by a stamp: the clock behind it may be set back.
4. Nothing is decided from an event. They are for people.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from controlplane.core.backoff import Backoff
from controlplane.dataplanes.client import DataPlaneClient
from controlplane.errors import DataPlaneError

_KEPT: Final = 256
"""For one slow reader; then it misses the oldest. As many are remembered for readers who come later."""
_PAUSE_S: Final = 1.0
_PAUSE_MAX_S: Final = 15.0
_TOLD: Final = 1024
"""Events of a data plane that are known again; it remembers 256, and tells no others a second time."""


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
        self._put(event)

    def end(self) -> None:
        """Let every reader finish: an open stream would hold up the server's end."""
        self._ended = True
        self._put(None)

    def _put(self, event: dict[str, Any] | None) -> None:
        for queue in self._readers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

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


async def follow(
    client: DataPlaneClient, publish: Callable[[dict[str, Any]], None], *, pause_s: float = _PAUSE_S
) -> None:
    """Follow a data plane until cancelled.

    Args:
        client: Asks it.
        publish: Takes each event: its fields, `type` and `dataplane`.
        pause_s: Before the first new try; doubles up to 15 s.
    """
    told: dict[tuple[str, str], None] = {}
    pauses = Backoff(pause_s, _PAUSE_MAX_S, least=1.0)
    while True:
        # The status says who cannot be reached, and why.
        with contextlib.suppress(DataPlaneError):
            async for known_by, kind, fields in client.events():
                pauses.succeed()
                event = (known_by, str(fields.get("at", "")))
                if event in told:
                    continue
                told[event] = None
                if len(told) > _TOLD:
                    del told[next(iter(told))]
                publish({**fields, "id": known_by, "type": kind, "dataplane": client.endpoint.name})
        await asyncio.sleep(pauses.fail(lambda: 1.0))
