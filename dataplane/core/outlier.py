"""Passive health of one service: eject a backend for what clients' connections meet there.

Theory of operation
-------------------

1. A failure is a connect that failed, or a reset before the backend's first byte (`Evidence`). What was this
   machine's fault (no descriptors, no ports) is none, and never arrives here. Connects always count. Resets count as
   `PassiveSpec.resets` says, because a client can provoke them: a server that closes on input which it has not read
   resets (RFC 1122, 4.2.2.13), so that whoever speaks the wrong protocol would have a healthy backend ejected.
2. A backend is `in` or `ejected`. `PassiveSpec.failures` failures in a row eject it; one success ends the streak.
3. An ejection lasts `ejection_s` times n, at most `max_ejection_s`, where n says how often the backend was ejected
   lately, this time included. n falls by one for every `ejection_s` that the backend has been back. It never grows
   beyond what `max_ejection_s` can show, else a long outage would be remembered for hours.
4. At most max(1, floor(max_ejected * population)) backends are ejected at once. When half the world resets, the
   fault is rarely in each of the backends, and somebody must take the clients. An ejection beyond that is refused
   and told once; the streak stays, and the next failure asks again. The same goes for a streak with a reset in it, if
   nobody else in the backend's tier is usable: resets alone never take a tier's last one away.
5. An ejection ends when its time is over, when an active check passes, when passive checks are switched off, or
   with the backend. The streak starts from nothing then.
6. While ejected, failures and successes say nothing new (they come from connections of before, or from panic).
7. `TRANSITIONS` lists every pair that can occur; `Outliers._step` looks the next state up there and nowhere else.

The idea, with consecutive failures, growing ejection times and a cap, is Envoy's outlier detection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from math import ceil, floor
from typing import Final

from dataplane.core.health import HealthState, HealthView
from dataplane.core.spec import PassiveSpec, Resets

ROUNDING: Final = 1e-9
"""0.29 * 100 is 28.999999999999996 in binary floating point, and means 29 backends."""


class Standing(Enum):
    """Where passive health sees a backend."""

    IN = "in"
    EJECTED = "ejected"


class Event(Enum):
    """What happens to a backend's standing."""

    FAILURE = "failure"
    """A failure that does not complete a streak."""
    SUCCESS = "success"
    """The backend spoke to a client."""
    EJECT = "eject"
    """A streak is complete, and nothing forbids an ejection."""
    REFUSE = "refuse"
    """A streak is complete, and something forbids an ejection."""
    EXPIRE = "expire"
    """The ejection's time is over."""
    CHECK = "check"
    """An active check passed."""
    OFF = "off"
    """Passive checks were switched off."""


TRANSITIONS: Final[dict[tuple[Standing, Event], Standing]] = {
    (Standing.IN, Event.FAILURE): Standing.IN,
    (Standing.IN, Event.SUCCESS): Standing.IN,
    (Standing.IN, Event.EJECT): Standing.EJECTED,
    (Standing.IN, Event.REFUSE): Standing.IN,
    (Standing.IN, Event.CHECK): Standing.IN,
    (Standing.IN, Event.OFF): Standing.IN,
    (Standing.EJECTED, Event.FAILURE): Standing.EJECTED,
    (Standing.EJECTED, Event.SUCCESS): Standing.EJECTED,
    (Standing.EJECTED, Event.EXPIRE): Standing.IN,
    (Standing.EJECTED, Event.CHECK): Standing.IN,
    (Standing.EJECTED, Event.OFF): Standing.IN,
}


class Evidence(Enum):
    """What a failure was."""

    CONNECT = "connect"
    """A connect that failed or timed out."""
    UNPROVOKED_RESET = "unprovoked reset"
    """A reset to which the client's side cannot have given cause."""
    RESET = "reset"
    """Any other reset before the backend's first byte."""


_COUNTED: Final[dict[Resets, frozenset[Evidence]]] = {
    Resets.OFF: frozenset({Evidence.CONNECT}),
    Resets.UNPROVOKED: frozenset({Evidence.CONNECT, Evidence.UNPROVOKED_RESET}),
    Resets.ANY: frozenset(Evidence),
}


class Refusal(Enum):
    """Why a complete streak does not eject."""

    CAP = "passive.max_ejected backends are ejected already"
    LAST = "it is the last usable one of its tier, and resets alone never eject that"


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure of a backend."""

    backend_id: str
    evidence: Evidence
    cause: str
    """Why, in a few words."""
    at: float
    """Monotonic seconds."""


@dataclass(frozen=True, slots=True)
class Ejection:
    """One ejection in force."""

    backend_id: str
    cause: str
    """The failure that completed the streak."""
    since: float
    """Monotonic seconds."""
    until: float
    """Monotonic seconds at which it ends by itself."""
    times: int
    """How often the backend was ejected lately, this one included; at least 1."""
    reachable: bool
    """Whether connections could be made, only to be reset."""

    @property
    def view(self) -> HealthView:
        """The ejection as `health.combine` takes it."""
        return HealthView(HealthState.EJECTED, self.cause, self.since, self.reachable)


@dataclass(slots=True)
class _Record:
    """What is remembered of a backend that has failed at least once."""

    standing: Standing = Standing.IN
    times: int = 0
    """Ejections lately, as of `released`."""
    released: float = 0.0
    """Monotonic seconds at which the last ejection ended."""
    reset: bool = False
    """Whether a reset is part of the streak."""


class Outliers:
    """Passive health of all backends of one service.

    `failing` maps the id of each backend with a streak to its length (at least 1). It is the same dictionary for
    the object's whole life and only to be read: one look at it per connection tells the caller whether `success`
    has anything to do.
    """

    __slots__ = ("_ejected", "_records", "_spec", "failing")

    def __init__(self, spec: PassiveSpec) -> None:
        self._spec = spec
        self._records: dict[str, _Record] = {}
        self._ejected: dict[str, Ejection] = {}
        self.failing: dict[str, int] = {}

    def ejection(self, backend_id: str) -> Ejection | None:
        """Return the ejection that is in force for a backend, None if there is none."""
        return self._ejected.get(backend_id)

    def ejected(self) -> tuple[Ejection, ...]:
        """Return every ejection in force, oldest first."""
        return tuple(self._ejected.values())

    def allowed(self, population: int) -> int:
        """Return how many of `population` backends may be ejected at once: at least 1."""
        return max(1, floor(self._spec.max_ejected * population + ROUNDING))

    def failure(
        self, failure: Failure, *, population: int, has_others: Callable[[], bool]
    ) -> Ejection | Refusal | None:
        """Count a failure; `has_others` tells whether another backend of the same tier is usable.

        Returns the ejection if this failure caused one; why not, if it completed a streak without one; else None: the
        streak is short or was refused before, the backend is ejected already, or the failure does not count.
        """
        spec, backend_id = self._spec, failure.backend_id
        if spec.failures <= 0 or failure.evidence not in _COUNTED[spec.resets]:
            return None
        record = self._records.setdefault(backend_id, _Record())
        if record.standing is Standing.EJECTED:
            self._step(record, Event.FAILURE)
            return None
        record.reset |= failure.evidence is not Evidence.CONNECT
        streak = self.failing[backend_id] = self.failing.get(backend_id, 0) + 1
        if streak < spec.failures:
            self._step(record, Event.FAILURE)
            return None
        refusal = None
        if len(self._ejected) >= self.allowed(population):
            refusal = Refusal.CAP
        elif record.reset and not has_others():
            refusal = Refusal.LAST
        if refusal is not None:
            self._step(record, Event.REFUSE)
            # Once a streak: each further failure of it would only say the same again.
            return refusal if streak == spec.failures else None
        return self._eject(record, failure)

    def success(self, backend_id: str) -> None:
        """Count a connection on which the backend spoke. Needed only for a backend that is in `failing`."""
        if self.failing.pop(backend_id, 0):
            record = self._records[backend_id]
            record.reset = False
            self._step(record, Event.SUCCESS)

    def passed_check(self, backend_id: str, now: float) -> bool:
        """Take a passed active check, which ends an ejection.

        The streak of a backend that is not ejected stays: a check that passes while clients' connections fail
        would otherwise hide just what passive health is for. Tells whether the backend was ejected.
        """
        record = self._records.get(backend_id)
        if record is None:
            return False
        if self._step(record, Event.CHECK) is Standing.IN and backend_id in self._ejected:
            self._release(backend_id, record, now)
            return True
        return False

    def expire(self, now: float) -> list[str]:
        """End the ejections whose time is over; return the ids of the backends that are back, oldest ejection first."""
        over = [ejection for ejection in self._ejected.values() if ejection.until <= now]
        for ejection in over:
            record = self._records[ejection.backend_id]
            self._step(record, Event.EXPIRE)
            self._release(ejection.backend_id, record, ejection.until)
        return [ejection.backend_id for ejection in over]

    def next_deadline(self) -> float | None:
        """Return when `expire` has something to do (monotonic seconds), None if nothing is ejected."""
        return min((ejection.until for ejection in self._ejected.values()), default=None)

    def remove(self, backend_id: str) -> None:
        """Forget a backend that is no longer part of the service; its place under the cap is free."""
        self._records.pop(backend_id, None)
        self._ejected.pop(backend_id, None)
        self.failing.pop(backend_id, None)

    def reconfigure(self, spec: PassiveSpec) -> list[str]:
        """Change the settings; streaks, ejections in force and their ends stay.

        `failures` of 0 switches passive health off: every backend is released (their ids are returned), and everything
        forgotten.
        """
        self._spec = spec
        if spec.failures > 0:
            return []
        released = list(self._ejected)
        for record in self._records.values():
            self._step(record, Event.OFF)
        self._records.clear()
        self._ejected.clear()
        self.failing.clear()
        return released

    def _eject(self, record: _Record, failure: Failure) -> Ejection:
        self._step(record, Event.EJECT)
        backend_id, now = failure.backend_id, failure.at
        period, longest = self._spec.ejection_s, self._spec.max_ejection_s
        record.times = min(self._times(record, now) + 1, max(1, ceil(longest / period)) if period > 0 else 1)
        until = now + min(period * record.times, longest)
        ejection = self._ejected[backend_id] = Ejection(
            backend_id, failure.cause, now, until, record.times, record.reset
        )
        record.reset = False
        del self.failing[backend_id]
        return ejection

    def _times(self, record: _Record, now: float) -> int:
        """Return how often the backend was ejected lately, after decay; 0 if never."""
        if record.times == 0 or self._spec.ejection_s <= 0:
            return 0
        return max(0, record.times - int((now - record.released) / self._spec.ejection_s))

    def _release(self, backend_id: str, record: _Record, now: float) -> None:
        del self._ejected[backend_id]
        record.released = now

    @staticmethod
    def _step(record: _Record, event: Event) -> Standing:
        record.standing = TRANSITIONS[record.standing, event]
        return record.standing
