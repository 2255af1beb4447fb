"""When relaying flows of one service have to end, and why.

A deadline that moves with every byte is not moved in the wheel: when its tick comes, it is looked at what has moved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from dataplane.core.reasons import CloseReason
from dataplane.net.sockopts import tune_backend, unsent_bytes, user_timeout_ms

if TYPE_CHECKING:
    from dataplane.core.spec import TimeoutsSpec
    from dataplane.net.backend import Backend
    from dataplane.net.leg import Leg
    from dataplane.net.reactor import Wheel

LONG_LIVED_S: Final = 15.0
"""A connection that lasts so long gets keepalive on its backend leg; a shorter one never pays for it."""
QUIET_S: Final = 1.0
"""What has not moved for so long rests: it may be told that this is the end."""
_CUTS: Final = frozenset({CloseReason.LIFETIME, CloseReason.DRAIN_TIMEOUT, CloseReason.SHUTDOWN})
"""Deadlines that come whatever the flow does."""


class _Service(Protocol):
    drain_reason: CloseReason


class _Flow(Protocol):
    """A flow, as its deadlines see it (`net.flow.Flow`)."""

    tick: int
    last: float
    started_at: float
    connected_at: float
    deadline: float
    unsent: int
    tuned: bool
    reason: CloseReason | None
    client: Leg
    server: Leg | None
    victim: Leg | None
    speaker: Leg | None
    backend: Backend | None

    @property
    def service(self) -> _Service: ...
    def on_timer(self, now: float) -> None: ...
    def reset_victim(self, victim: Leg) -> None: ...
    def end(self, reason: CloseReason, reset: bool = False, given_back: Leg | None = None) -> None: ...  # noqa: FBT001, FBT002 - compiled functions have no keyword-only arguments


class Deadlines:
    """The timeouts of one service, as its flows meet them."""

    __slots__ = ("_timeouts", "_user_timeout_ms", "_wheel", "first_check_s")

    def __init__(self, wheel: Wheel, timeouts: TimeoutsSpec) -> None:
        self._wheel = wheel
        self.configure(timeouts)

    def configure(self, timeouts: TimeoutsSpec) -> None:
        """Take other timeouts; flows in place meet them when they are looked at next."""
        self._timeouts = timeouts
        self._user_timeout_ms = user_timeout_ms(timeouts.idle_s)
        self.first_check_s = min(
            seconds for seconds in (timeouts.idle_s, timeouts.lifetime_s, LONG_LIVED_S) if seconds
        )
        """How long after its beginning a relay is looked at for the first time."""

    def schedule(self, flow: _Flow) -> None:
        """Put the earliest deadline of a flow into the wheel: that of a drain has come, or has gone."""
        wheel = self._wheel
        if flow.victim is not None:  # it is looked at every few ticks already
            return
        if flow.server is None:  # what it waits for has a deadline of its own
            if flow.deadline and not 0 < flow.tick * wheel.resolution_s <= flow.deadline:
                wheel.move(flow, flow.deadline)
            return
        when = self._due(flow)[0]
        if when:
            wheel.move(flow, when)
        else:
            wheel.cancel(flow)

    def half_closed(self, flow: _Flow, now: float) -> None:
        """Let the shorter deadline hold from now on: the backend has finished first."""
        wheel, half_closed_s = self._wheel, self._timeouts.half_closed_s
        if half_closed_s and (not flow.tick or flow.tick * wheel.resolution_s > now + half_closed_s):
            wheel.move(flow, now + half_closed_s)

    def on_timer(self, flow: _Flow, now: float) -> None:
        """End a flow if a deadline has really passed; bytes may have moved since it was set."""
        progress = _is_being_read(flow)
        when, reason = self._due(flow)
        if progress and (flow.victim is not None or 0 < when <= now):
            flow.last = now
            when, reason = self._due(flow)
        if when and when <= now:
            flow.end(reason, reset=flow.victim is not None or _is_cut_short(flow, reason, now))
            return
        if flow.victim is not None:
            flow.reset_victim(flow.victim)
            return
        if not flow.tuned:
            long_lived = flow.connected_at + LONG_LIVED_S
            if long_lived <= now:
                flow.tuned = True
                self._tune(flow)
            elif not when or long_lived < when:
                when = long_lived
        if when:
            self._wheel.at(flow, when)

    def _due(self, flow: _Flow) -> tuple[float, CloseReason]:
        """Return when a flow has to end if nothing happens until then, and why; (0, ...) for never."""
        timeouts = self._timeouts
        when, reason = 0.0, CloseReason.IDLE_TIMEOUT
        if flow.reason is CloseReason.BACKEND_CLOSED and timeouts.half_closed_s:
            when, reason = flow.last + timeouts.half_closed_s, CloseReason.HALF_CLOSED_TIMEOUT
        elif timeouts.idle_s:
            when = flow.last + timeouts.idle_s
        if timeouts.lifetime_s and not 0 < when < flow.started_at + timeouts.lifetime_s:
            when, reason = flow.started_at + timeouts.lifetime_s, CloseReason.LIFETIME
        if flow.deadline and not 0 < when < flow.deadline:
            when, reason = flow.deadline, flow.service.drain_reason
        return when, reason

    def _tune(self, flow: _Flow) -> None:
        """Give the backend leg of a connection that lasts its keepalive."""
        if flow.server is not None and flow.backend is not None and flow.backend.address is not None:
            tune_backend(flow.server.fd, flow.backend.address.family, self._user_timeout_ms)


def _is_being_read(flow: _Flow) -> bool:
    """Return whether a peer's kernel has taken or been given anything since the last look.

    Megabytes may wait in ours. A reader that takes them slowly is not idle, although we write nothing.
    """
    assert flow.server is not None  # noqa: S101 - asked while relaying
    unsent = unsent_bytes(flow.client.fd) + unsent_bytes(flow.server.fd)
    moved = unsent != flow.unsent
    flow.unsent = unsent
    return moved


def _is_cut_short(flow: _Flow, reason: CloseReason, now: float) -> bool:
    """Return whether a deadline comes in the middle of something, so that a FIN would be taken for its end.

    Held back by a slow reader, or, where it is not silence that ends the flow, something moved just now.
    """
    assert flow.server is not None  # noqa: S101 - asked while relaying
    if flow.client.pending is not None or flow.server.pending is not None:
        return True
    return reason in _CUTS and flow.speaker is not None and now - flow.last < QUIET_S
