"""What happens, told once: to the log, and to whoever follows `GET /v1/events`."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

HISTORY: Final = 256
"""Events kept for a follower who comes back with the id of the last one that it saw."""
BACKLOG: Final = 1024
"""Events kept for a follower who does not read; then the oldest go, and it is told how many."""


def rfc3339(unix_s: float) -> str:
    """Write a time as `2026-01-01T00:00:00.000Z`."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def draw_instance() -> str:
    """Return an id that no other process has, and none before it had; a pid is always the same in a container.

    16 hexadecimal digits: two of a thousand million processes have the same one with a chance of 3 %.
    """
    return os.urandom(8).hex()


class Event(NamedTuple):
    """One happening."""

    number: int
    """Running, in its process."""
    kind: str
    fields: dict[str, Any]


@dataclass(eq=False, slots=True)
class _Follower:
    pending: deque[Event] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    dropped: int = 0


class Events:
    """The hub. `emit` never waits, and gives `log` the kind and the fields of each.

    Nothing is ordered by the clock (Unix seconds), for it may be set back: events are known by the `instance` of their
    process (`draw_instance`) and their number.
    """

    def __init__(self, log: Callable[..., None], wall_clock: Callable[[], float], instance: str = "") -> None:
        self.instance = instance
        self._log = log
        self._wall_clock = wall_clock
        self._number = 0
        self._recent: deque[Event] = deque(maxlen=HISTORY)
        self._followers: set[_Follower] = set()
        self.closed = False

    def now(self) -> str:
        """Return the time as events have it."""
        return rfc3339(self._wall_clock())

    def emit(self, kind: str, **fields: Any) -> None:
        """Tell everybody."""
        self._number += 1
        event = Event(self._number, kind, {"at": self.now(), **fields})
        self._recent.append(event)
        for follower in self._followers:
            if len(follower.pending) >= BACKLOG:
                follower.pending.popleft()
                follower.dropped += 1
            follower.pending.append(event)
            follower.wake.set()
        self._log(kind, **fields)

    def id_of(self, event: Event) -> str:
        """Return what a follower knows an event by: no other has it, in this process or another."""
        return f"{self.instance}-{event.number}"

    def after(self, last_id: str) -> int | None:
        """Tell which number a follower saw last, by an id of `id_of` or a number alone; None: it wants only new ones.

        To one with the id of another process all are new.
        """
        instance, _, number = last_id.rpartition("-")
        if not last_id:
            return None
        return int(number) if number.isdecimal() and instance in {"", self.instance} else 0

    def close(self) -> None:
        """End every follower's stream."""
        self.closed = True
        for follower in self._followers:
            follower.wake.set()

    async def follow(self, after: int | None, heartbeat_s: float) -> AsyncIterator[Event | None]:
        """Yield events after number `after` (None: only new ones), and None when none came for `heartbeat_s`."""
        follower = _Follower()
        if after is not None:
            follower.pending.extend(event for event in self._recent if event.number > after)
        self._followers.add(follower)
        try:
            while not self.closed:
                if follower.dropped:
                    dropped, follower.dropped = follower.dropped, 0
                    # Numbered as the last of those that it missed: what comes next is the one after that.
                    number = follower.pending[0].number - 1
                    yield Event(number, "dropped", {"at": self.now(), "events": dropped})
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
