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
6. `TRANSITIONS` lists every pair that can occur. `_Fact` looks the next state up there and nowhere else, so a pair
   that is missing is a bug, and raises `KeyError`.
7. A check finds two facts: whether the connection could be made (reachable), and whether the answer was right
   (healthy). Both are kept by the same machine with the same thresholds. Who is healthy is reachable, so an `up`
   backend always is. A backend that is `down` may be either: with nobody healthy, those that are reachable serve
   (`selection`, rule 3), because it is likelier that the check is wrong than that all are broken and accept.

`ejected` is no state of this machine: it is passive health's word (see `outlier`). `combine` puts both together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import Final


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
class Outcome:
    """What one check found."""

    ok: bool
    cause: str
    """`ok`, or why not, in a few words."""
    reachable: bool = True
    """Whether the connection could be made to where clients go."""
    certificate_ends: float = 0.0
    """When the backend's certificate is valid no more (Unix seconds); 0: none was seen."""
    certificate_due: float = 0.0
    """From when on somebody should have renewed it."""


@dataclass(frozen=True, slots=True)
class HealthView:
    """What status shows: the state, why, since when, and whether a connection can be made."""

    state: HealthState
    cause: str
    since: float
    """Monotonic seconds."""
    reachable: bool = True
    """False only if that is known."""


@dataclass(frozen=True, slots=True)
class Change:
    """A step from one state, or from one answer to whether it is reachable, to another."""

    old: HealthView
    new: HealthView


@dataclass(slots=True, eq=False)
class _Fact:
    """One thing that checks say yes or no to, and its streak."""

    state: HealthState = HealthState.UNKNOWN
    _last: bool = True
    _streak: int = 0

    def observe(self, ok: bool, rise: int, fall: int) -> None:  # noqa: FBT001 - a verdict is a bool
        """Take what one check says."""
        self._streak = self._streak + 1 if ok is self._last else 1
        self._last = ok
        if ok:
            rises = self.state is HealthState.DOWN and self._streak >= rise
            self._step(Event.RISE if rises else Event.PASS)
        else:
            falls = self.state is HealthState.UP and self._streak >= fall
            self._step(Event.FALL if falls else Event.FAIL)

    def decide(self, ok: bool) -> None:  # noqa: FBT001 - the same
        """Take a verdict that needs no streak."""
        self._last, self._streak = ok, 1
        if self.state is HealthState.UNKNOWN:
            self._step(Event.PASS if ok else Event.FAIL)
        elif (self.state is HealthState.UP) is not ok:
            self._step(Event.RISE if ok else Event.FALL)

    def forget(self) -> None:
        """Return to unknown."""
        self._streak = 0
        self._step(Event.FORGET)

    def _step(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state, event]


class ActiveHealth:
    """Count one backend's verdicts and keep its state.

    `rise` successes in a row lead from down to up, `fall` failures from up to down; at least 1 each.
    """

    __slots__ = ("_connects", "_fall", "_passes", "_rise", "cause", "since")

    def __init__(self, rise: int, fall: int, *, now: float = 0.0) -> None:
        self._rise = rise
        self._fall = fall
        self._passes = _Fact()
        self._connects = _Fact()
        self.cause = "not checked yet"
        """What led to the present state, reachable or not; a later verdict that changes nothing does not touch it."""
        self.since = now
        """Monotonic seconds at which the present state began."""

    @property
    def state(self) -> HealthState:
        """The present state: unknown, up or down."""
        return self._passes.state

    @property
    def reachable(self) -> bool:
        """Whether a connection can be made; False only if checks say so."""
        return self._connects.state is not HealthState.DOWN

    @property
    def view(self) -> HealthView:
        """The state as `combine` takes it."""
        return HealthView(self.state, self.cause, self.since, self.reachable)

    def observe(self, outcome: Outcome, now: float) -> Change | None:
        """Take what one check found, at monotonic second `now`; return the change, None if there was none."""
        old = self.state, self.reachable
        self._passes.observe(outcome.ok, self._rise, self._fall)
        self._connects.observe(outcome.ok or outcome.reachable, self._rise, self._fall)
        return self._changed(*old, outcome.cause, now)

    def decide(
        self, state: HealthState, cause: str, now: float, *, reachable: bool | None = None
    ) -> Change | None:
        """Take a verdict that needs no streak: somebody who counts differently has decided.

        `reachable` says whether a connection can be made to a backend that is down; None: what is known of it stays.
        """
        if state is HealthState.UNKNOWN:
            return self.forget(now)
        old = self.state, self.reachable
        self._passes.decide(state is HealthState.UP)
        if state is HealthState.UP or reachable is not None:
            self._connects.decide(state is HealthState.UP or bool(reachable))
        return self._changed(*old, cause, now)

    def reconfigure(self, rise: int, fall: int) -> None:
        """Change the thresholds; state and streak stay, and the next verdict is measured with the new ones."""
        self._rise = rise
        self._fall = fall

    def forget(self, now: float) -> Change | None:
        """Return to unknown because checks were switched off."""
        if self.state is HealthState.UNKNOWN:
            return None  # nothing was found since
        old = self.state, self.reachable
        self._passes.forget()
        self._connects.forget()
        return self._changed(*old, "checks are off", now)

    def _changed(self, state: HealthState, reachable: bool, cause: str, now: float) -> Change | None:  # noqa: FBT001 - what was
        if state is self.state and reachable is self.reachable:
            return None
        old = HealthView(state, self.cause, self.since, reachable)
        self.cause = cause
        if state is not self.state:
            self.since = now
        return Change(old, self.view)


def combine(active: HealthView, ejected: HealthView | None) -> HealthView:
    """Put active and passive health of one backend into the one view that status shows.

    Down by an active check wins over ejected, because it stays when the ejection ends; ejected wins over up and
    unknown, because it is what keeps clients away. Reachable is what nobody says the contrary of.
    """
    if ejected is None:
        return active
    view = active if active.state is HealthState.DOWN else ejected
    reachable = active.reachable and ejected.reachable
    return view if view.reachable is reachable else replace(view, reachable=reachable)
