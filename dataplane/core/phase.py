"""The life of a process, whether it is a whole data plane, the supervisor of one, or a worker: where it is, and what may follow.

Theory of operation
-------------------

1. A process is `starting` until its listeners accept. What goes wrong until then ends it, and nobody was served.
2. With --takeover it is `taking_over` from the moment when the running process has sent its listening sockets. Until that
   one has been told that they are accepted from, it goes on, and a failure ends only the new one.
3. `serving` ends in one of two ways. A process that is told to end (a signal; a worker: its supervisor) is `draining`: it
   closes its listeners and gives its name away. One whose sockets another process has taken is `released`: the
   listeners and the name are the other's. Both change nothing any more, and wait for the connections that they have.
4. Whoever is told to end while he starts finishes his start first, as there are sockets that somebody has to serve until
   they are closed in good order. So a process that is `draining` may still hear that it could serve, or that its sockets
   were taken: that changes nothing.
5. Who drains and is told again ends at once. A released process that is told to end drains: its clients are not cut for it.
6. `TRANSITIONS` lists every pair that can occur. `Life` looks the next phase up there and nowhere else, so a pair that is
   missing is a bug, and raises `KeyError`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, StrEnum
from typing import Final


class Phase(StrEnum):
    """Where a process is in its life."""

    STARTING = "starting"
    TAKING_OVER = "taking_over"
    SERVING = "serving"
    RELEASED = "released"
    DRAINING = "draining"
    ENDED = "ended"


class Turn(Enum):
    """What happens to a process."""

    TAKE = "take"
    """It has got another's listening sockets, and prepares to accept from them."""
    SERVE = "serve"
    """Its listeners accept."""
    RELEASE = "release"
    """Another process accepts in its place."""
    STOP = "stop"
    """It is told to end."""
    END = "end"
    """Its last connection has gone, or it could not start."""


TRANSITIONS: Final[dict[tuple[Phase, Turn], Phase]] = {
    (Phase.STARTING, Turn.TAKE): Phase.TAKING_OVER,
    (Phase.STARTING, Turn.SERVE): Phase.SERVING,
    (Phase.STARTING, Turn.STOP): Phase.DRAINING,
    (Phase.STARTING, Turn.END): Phase.ENDED,
    (Phase.TAKING_OVER, Turn.SERVE): Phase.SERVING,
    (Phase.TAKING_OVER, Turn.STOP): Phase.DRAINING,
    (Phase.TAKING_OVER, Turn.END): Phase.ENDED,
    (Phase.SERVING, Turn.RELEASE): Phase.RELEASED,
    (Phase.SERVING, Turn.STOP): Phase.DRAINING,
    (Phase.SERVING, Turn.END): Phase.ENDED,
    (Phase.RELEASED, Turn.STOP): Phase.DRAINING,
    (Phase.RELEASED, Turn.END): Phase.ENDED,
    (Phase.DRAINING, Turn.TAKE): Phase.DRAINING,
    (Phase.DRAINING, Turn.SERVE): Phase.DRAINING,
    (Phase.DRAINING, Turn.RELEASE): Phase.DRAINING,
    (Phase.DRAINING, Turn.STOP): Phase.ENDED,
    (Phase.DRAINING, Turn.END): Phase.ENDED,
}


class Life:
    """Where one process is; `on_leaving` is called once, when it is to drain, or another process accepts."""

    def __init__(self, on_leaving: Callable[[], None] = lambda: None) -> None:
        self.phase = Phase.STARTING
        self.leaving_since: float | None = None
        """In Unix seconds; None while it starts or serves."""
        self._on_leaving = on_leaving

    def turn(self, turn: Turn, at: float) -> Phase:
        """Take note of what happens, at Unix seconds `at`; return the phase that follows."""
        self.phase = TRANSITIONS[self.phase, turn]
        if self.leaving_since is None and self.phase in {Phase.RELEASED, Phase.DRAINING}:
            self.leaving_since = at
            self._on_leaving()
        return self.phase
