"""Active health of one backend: what its checks say, and what status shows of it.

Theory of operation
-------------------

1. A backend starts `unknown`, which counts as usable: nobody has said anything against it.
2. The first verdict counts at once, good or bad. A data plane that has just started must not send clients
   to a backend that it knows to be dead, nor wait for `rise` checks before it knows anything.
3. From then on it takes a streak. `fall` failures in a row bring `up` to `down`, `rise` successes in a row
   bring `down` to `up`. One verdict of the other kind ends a streak.
4. Each verdict is exactly one event: `PASS` and `FAIL` leave the state alone (except by rule 2), `RISE` and
   `FALL` are the verdicts that complete a streak.
5. `FORGET` (checks were switched off) leads from everywhere to `unknown`.
6. `TRANSITIONS` lists every pair that can occur. `ActiveHealth` looks the next state up there and nowhere else,
   so a pair that is missing is a bug, and raises `KeyError`.

`ejected` is no state of this machine: it is passive health's word (see `outlier`). `combine` puts both together.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final

__all__ = ["TRANSITIONS", "ActiveHealth", "Change", "Event", "HealthState", "HealthView", "combine"]


class HealthState(StrEnum):
    """What is observed of a backend. Active checks never say `ejected`."""

    UNKNOWN = "unknown"
    UP = "up"
    DOWN = "down"
    EJECTED = "ejected"

    @property
    def usable(self) -> bool:
        """Whether a backend in this state may take new connections (panic aside)."""
        return self is HealthState.UP or self is HealthState.UNKNOWN


class Event(Enum):
    """What a verdict means to the state machine."""

    PASS = "pass"  # noqa: S105 - a check's verdict, no password
    """A success that completes no streak."""
    FAIL = "fail"
    """A failure that completes no streak."""
    RISE = "rise"
    """The success that completes a streak of `rise`."""
    FALL = "fall"
    """The failure that completes a streak of `fall`."""
    FORGET = "forget"
    """Checks were switched off."""


TRANSITIONS: Final[dict[tuple[HealthState, Event], HealthState]] = {
    (HealthState.UNKNOWN, Event.PASS): HealthState.UP,
    (HealthState.UNKNOWN, Event.FAIL): HealthState.DOWN,
    (HealthState.UNKNOWN, Event.FORGET): HealthState.UNKNOWN,
    (HealthState.UP, Event.PASS): HealthState.UP,
    (HealthState.UP, Event.FAIL): HealthState.UP,
    (HealthState.UP, Event.FALL): HealthState.DOWN,
    (HealthState.UP, Event.FORGET): HealthState.UNKNOWN,
    (HealthState.DOWN, Event.PASS): HealthState.DOWN,
    (HealthState.DOWN, Event.FAIL): HealthState.DOWN,
    (HealthState.DOWN, Event.RISE): HealthState.UP,
    (HealthState.DOWN, Event.FORGET): HealthState.UNKNOWN,
}


@dataclass(frozen=True, slots=True)
class Change:
    """A step from one state to another."""

    old: HealthState
    new: HealthState
    cause: str
    since: float
    """Monotonic seconds of the verdict that did it."""


@dataclass(frozen=True, slots=True)
class HealthView:
    """What status shows: the state, why, and since when."""

    state: HealthState
    cause: str
    since: float
    """Monotonic seconds."""


class ActiveHealth:
    """Count one backend's verdicts and keep its state.

    Args:
        rise: Successes in a row that lead from down to up, at least 1.
        fall: Failures in a row that lead from up to down, at least 1.
        now: Monotonic seconds; since when the state is unknown.
    """

    __slots__ = ("_cause", "_fall", "_last_failure", "_last_ok", "_rise", "_since", "_state", "_streak")

    def __init__(self, rise: int, fall: int, *, now: float = 0.0) -> None:
        self._rise = rise
        self._fall = fall
        self._state = HealthState.UNKNOWN
        self._cause = "not checked yet"
        self._since = now
        self._last_failure = ""
        self._last_ok = True
        self._streak = 0

    @property
    def state(self) -> HealthState:
        """The present state: unknown, up or down."""
        return self._state

    @property
    def cause(self) -> str:
        """What led to the present state; a later verdict that changes nothing does not touch it."""
        return self._cause

    @property
    def since(self) -> float:
        """Monotonic seconds at which the present state began."""
        return self._since

    @property
    def last_failure(self) -> str:
        """The newest failure's cause, also while up; empty if there was none."""
        return self._last_failure

    @property
    def view(self) -> HealthView:
        """The state as `combine` takes it."""
        return HealthView(self._state, self._cause, self._since)

    def observe(self, ok: bool, cause: str, now: float) -> Change | None:  # noqa: FBT001 - a verdict is a bool
        """Take the verdict of one check.

        Args:
            ok: Whether the check passed.
            cause: Why, in a few words ("connection refused"; "ok").
            now: Monotonic seconds.

        Returns:
            The change of state, None if there was none.
        """
        self._streak = self._streak + 1 if ok is self._last_ok else 1
        self._last_ok = ok
        if not ok:
            self._last_failure = cause
        return self._step(self._event(ok=ok), cause, now)

    def decide(self, state: HealthState, cause: str, now: float) -> Change | None:
        """Take a verdict that needs no streak: somebody who counts differently has decided.

        Args:
            state: Up, down or unknown.
            cause: Why, in a few words.
            now: Monotonic seconds.

        Returns:
            The change of state, None if there was none.
        """
        if state is HealthState.UNKNOWN:
            return self.forget(now)
        ok = state is HealthState.UP
        self._last_ok, self._streak = ok, 1
        if not ok:
            self._last_failure = cause
        if self._state is HealthState.UNKNOWN:
            return self._step(Event.PASS if ok else Event.FAIL, cause, now)
        if self._state is state:
            return None
        return self._step(Event.RISE if ok else Event.FALL, cause, now)

    def reconfigure(self, rise: int, fall: int) -> None:
        """Change the thresholds; state and streak stay, and the next verdict is measured with the new ones."""
        self._rise = rise
        self._fall = fall

    def forget(self, now: float) -> Change | None:
        """Return to unknown because checks were switched off.

        Returns:
            The change, None if the state was unknown already.
        """
        self._streak = 0
        self._last_failure = ""
        return self._step(Event.FORGET, "checks are off", now)

    def _event(self, *, ok: bool) -> Event:
        if ok:
            return (
                Event.RISE if self._state is HealthState.DOWN and self._streak >= self._rise else Event.PASS
            )
        return Event.FALL if self._state is HealthState.UP and self._streak >= self._fall else Event.FAIL

    def _step(self, event: Event, cause: str, now: float) -> Change | None:
        old = self._state
        new = TRANSITIONS[old, event]
        if new is old:
            return None
        self._state = new
        self._cause = cause
        self._since = now
        return Change(old, new, cause, now)


def combine(active: HealthView, ejected: HealthView | None) -> HealthView:
    """Put active and passive health of one backend into the one view that status shows.

    Down by an active check wins over ejected, because it stays when the ejection ends; ejected wins over up and
    unknown, because it is what keeps clients away.

    Args:
        active: What checks say; unknown without checks.
        ejected: The ejection in force (`Ejection.view`), None if there is none.
    """
    if ejected is None or active.state is HealthState.DOWN:
        return active
    return ejected
