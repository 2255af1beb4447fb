"""Which of the instances that a catalogue shows are wanted: those that are not critical, do not flap and are not lost.

An instance is *lost* while only its agent is silent. Then it is wanted for `absent_s` more, and after that for as long as
it passes the balancer's own checks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from controlplane.core.flap import FlapDamper
from controlplane.core.instances import Condition, Instance

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Answers", "Wanted"]

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
