"""What happens, told once: to the log, and to whoever follows `GET /v1/events`."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["Event", "Events", "rfc3339"]

HISTORY: Final = 256
"""Events kept for a follower who comes back with the id of the last one that it saw."""
BACKLOG: Final = 1024
"""Events kept for a follower who does not read; then the oldest go, and it is told how many."""


def rfc3339(unix_s: float) -> str:
    """Write a time as `2026-01-01T00:00:00.000Z`."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Event:
    """One happening: a running number, its kind, and its fields."""

    __slots__ = ("fields", "kind", "number")

    def __init__(self, number: int, kind: str, fields: dict[str, Any]) -> None:
        self.number = number
        self.kind = kind
        self.fields = fields


class _Follower:
    __slots__ = ("dropped", "pending", "wake")

    def __init__(self) -> None:
        self.pending: deque[Event] = deque()
        self.wake = asyncio.Event()
        self.dropped = 0


class Events:
    """The hub. `emit` never waits."""

    def __init__(self, log: Callable[..., None], wall_clock: Callable[[], float]) -> None:
        self._log = log
        self._wall_clock = wall_clock
        self._number = 0
        self._recent: deque[Event] = deque(maxlen=HISTORY)
        self._followers: set[_Follower] = set()
        self.closed = False

    def emit(self, kind: str, **fields: Any) -> None:
        """Tell everybody."""
        self._number += 1
        event = Event(self._number, kind, {"at": rfc3339(self._wall_clock()), **fields})
        self._recent.append(event)
        for follower in self._followers:
            if len(follower.pending) >= BACKLOG:
                follower.pending.popleft()
                follower.dropped += 1
            follower.pending.append(event)
            follower.wake.set()
        self._log(kind, **fields)

    def close(self) -> None:
        """End every follower's stream."""
        self.closed = True
        for follower in self._followers:
            follower.wake.set()

    async def follow(self, after: int | None, heartbeat_s: float) -> AsyncIterator[Event | None]:
        """Yield events as they happen, and None when nothing has for `heartbeat_s`.

        Args:
            after: The number of the last event seen; later ones that are still known come first. None: only new.
            heartbeat_s: Seconds.
        """
        follower = _Follower()
        if after is not None:
            follower.pending.extend(event for event in self._recent if event.number > after)
        self._followers.add(follower)
        try:
            while not self.closed:
                if follower.dropped:
                    dropped, follower.dropped = follower.dropped, 0
                    yield Event(self._number, "dropped", {"events": dropped})
                elif follower.pending:
                    yield follower.pending.popleft()
                else:
                    follower.wake.clear()
                    try:
                        async with asyncio.timeout(heartbeat_s):
                            await follower.wake.wait()
                    except TimeoutError:
                        yield None
        finally:
            self._followers.discard(follower)
