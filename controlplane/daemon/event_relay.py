"""What happens on the data planes, told to whoever follows the daemon.

Theory of operation:

1. One task for each data plane that there is holds its event stream open, and reconnects after a pause.
2. A data plane remembers its latest events, and is asked for all of them at each connection: what happened
   while nobody was connected, or before the daemon started, is told as well.
3. What was told already is known by its id, which is of one process, and its stamp: data planes of before had ids
   that began again with each process. Nothing is ordered by a stamp: the clock behind it may be set back.
4. Nothing is decided from an event. They are for people.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

from controlplane.dataplanes.endpoint import Endpoint
from controlplane.errors import DataPlaneError

__all__ = ["Following", "Streams"]

_PAUSE_S: Final = 1.0
_PAUSE_MAX_S: Final = 15.0
_TOLD: Final = 1024
"""Events of a data plane that are known again; it remembers 256, and tells no others a second time."""


class Streams(Protocol):
    """What following needs of a client."""

    def events(self) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
        """Yield id, kind and fields of each event, those that are remembered first."""


class Following:
    """Follows every data plane.

    Args:
        endpoints: Lists those that there are now.
        connect: Makes the client of one of them.
        publish: Takes each event: its fields, `type` and `dataplane`.
        pause_s: Before the first new try; doubles up to 15 s.
    """

    def __init__(
        self,
        endpoints: Callable[[], Iterable[Endpoint]],
        connect: Callable[[Endpoint], AbstractAsyncContextManager[Streams]],
        publish: Callable[[dict[str, Any]], None],
        *,
        pause_s: float = _PAUSE_S,
    ) -> None:
        self._endpoints = endpoints
        self._connect = connect
        self._publish = publish
        self._pause_s = pause_s
        self._woken = asyncio.Event()

    def look(self) -> None:
        """Find out who is there now: some data plane came, went or changed."""
        self._woken.set()

    async def run(self) -> None:
        """Follow until cancelled."""
        tasks: dict[Endpoint, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                there = set(self._endpoints())
                for endpoint in tasks.keys() - there:
                    tasks.pop(endpoint).cancel()
                for endpoint in there - tasks.keys():
                    tasks[endpoint] = group.create_task(self._follow(endpoint))
                await self._woken.wait()
                self._woken.clear()

    async def _follow(self, endpoint: Endpoint) -> None:
        told: dict[tuple[str, str], None] = {}
        pause = self._pause_s
        async with self._connect(endpoint) as client:
            while True:
                try:
                    async for known_by, kind, fields in client.events():
                        pause = self._pause_s
                        event = (known_by, str(fields.get("at", "")))
                        if event in told:
                            continue
                        told[event] = None
                        if len(told) > _TOLD:
                            del told[next(iter(told))]
                        self._publish({**fields, "id": known_by, "type": kind, "dataplane": endpoint.name})
                except DataPlaneError:
                    pass  # the status says who cannot be reached, and why
                await asyncio.sleep(pause)
                pause = min(2 * pause, _PAUSE_MAX_S)
