"""Which of the instances that a catalogue shows are wanted: those that are not critical, do not flap and are not lost.

An instance is *lost* while only its agent is silent. Then it is wanted for `absent_s` more, and after that for as long as
it passes the balancer's own checks.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from controlplane.core.instances import Condition, Instance

Answers = Callable[[str], bool]
"""Tells whether the backend of an id passes the balancer's own checks right now."""


class Wanted:
    """The instances of the last reply, and what they did before it."""

    __slots__ = ("_answers", "_damper", "_instances", "_lost_since")

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._damper = FlapDamper()
        self._instances: tuple[Instance, ...] = ()
        self._lost_since: dict[str, float] = {}

    def recall(self, other: Wanted) -> None:
        """Begin with what the instances of another one did: who flaps, and who is lost since when."""
        self._damper, self._lost_since = copy.deepcopy(other._damper), dict(other._lost_since)

    def note(self, instances: tuple[Instance, ...], now: float) -> None:
        """Take the instances of a reply."""
        self._instances = instances
        for item in instances:
            self._damper.note(item.id, now, up=item.condition is not Condition.CRITICAL)
        self._damper.prune({item.id for item in instances}, now)
        lost = {item.id for item in instances if item.condition is Condition.LOST}
        self._lost_since = {name: self._lost_since.get(name, now) for name in lost}

    def table(self, now: float, absent_s: float) -> dict[str, Instance]:
        """Return those that are wanted, by id."""
        return {item.id: item for item in self._instances if self._is_wanted(item, now, absent_s)}

    def flapping(self, now: float) -> list[str]:
        """Return the ids that are kept down because they flap, sorted."""
        return [item.id for item in self._instances if self._damper.is_suppressed(item.id, now)]

    def dues(self, published: Iterable[str], absent_s: float) -> list[float]:
        """Return when `table` changes without a new reply, in monotonic seconds; times that have passed may be among them."""
        known = set(published)
        ends = [since + absent_s for name, since in self._lost_since.items() if name in known]
        return ends + self._damper.reuses()

    def _is_wanted(self, item: Instance, now: float, absent_s: float) -> bool:
        if item.condition is Condition.CRITICAL:
            return False
        if item.condition is Condition.LOST:
            given_up_at = self._lost_since.get(item.id, now) + absent_s
            if now >= given_up_at and not self._answers(item.id):
                return False
        return not self._damper.is_suppressed(item.id, now)


HALF_LIFE_S: Final = 60.0
SUPPRESS: Final = 5.0
"""The penalty above which an instance is suppressed."""
REUSE: Final = 2.0
"""The penalty below which it is let back."""
_FORGET_BELOW: Final = 0.05


@dataclass(slots=True)
class _Record:
    up: bool
    penalty: float
    at: float
    suppressed: bool = False


class FlapDamper:
    """An instance that goes up and down all the time stays down until it has calmed.

    The penalty of BGP route flap damping (RFC 2439): one per change of state, halved every half-life; above `SUPPRESS`
    an instance is held down until its penalty has fallen below `REUSE`. Registering and deregistering do not count:
    they are somebody's word, not a check's.
    """

    __slots__ = ("_records",)

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    def note(self, name: str, now: float, *, up: bool) -> None:
        """Take note of an instance's state; a change adds one to its penalty."""
        record = self._records.get(name)
        if record is None:
            self._records[name] = _Record(up, 0.0, now)
            return
        self._settle(record, now)
        if record.up is not up:
            record.up = up
            record.penalty += 1.0
            if record.penalty > SUPPRESS:
                record.suppressed = True

    def is_suppressed(self, name: str, now: float) -> bool:
        """Tell whether an instance is to be treated as down."""
        record = self._records.get(name)
        if record is None:
            return False
        self._settle(record, now)
        return record.suppressed

    def reuses(self) -> list[float]:
        """Return when each suppressed instance is let back, in monotonic seconds."""
        return [
            record.at + HALF_LIFE_S * math.log2(record.penalty / REUSE)
            for record in self._records.values()
            if record.suppressed
        ]

    def prune(self, present: frozenset[str] | set[str], now: float) -> None:
        """Forget instances that are gone and whose penalty has faded."""
        for name, record in list(self._records.items()):
            if name not in present:
                self._settle(record, now)
                if record.penalty < _FORGET_BELOW:
                    del self._records[name]

    def _settle(self, record: _Record, now: float) -> None:
        """Let a penalty fade up to now."""
        record.penalty *= 0.5 ** (max(0.0, now - record.at) / HALF_LIFE_S)
        record.at = now
        # the tolerance: at exactly the time of reuses() rounding may leave a trace above the mark
        if record.suppressed and record.penalty <= REUSE * (1 + 1e-9):
            record.suppressed = False
