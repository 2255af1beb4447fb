"""Which datacenter of an ordered list serves: the first that has instances, and no hurry to go back.

A datacenter is left only when it is known to be empty, which its guard has confirmed, never because it cannot be
asked: a registry that is silent says nothing about its services. The one exception is the start: a datacenter
that has never answered does not keep the next from serving for longer than the hysteresis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

HYSTERESIS_S: Final = 30.0
"""How long a better datacenter must have had instances before it is chosen again."""


class Failover:
    """The choice among datacenters, by index."""

    __slots__ = ("_back_since", "_started_at", "current")

    def __init__(self, now: float) -> None:
        self.current: int | None = None
        """The index that serves; None before the first choice."""
        self._started_at = now
        self._back_since: dict[int, float] = {}

    def choose(self, usable: Sequence[int | None], now: float) -> int | None:
        """Choose the index that serves; None as long as none can be chosen.

        `usable` says for each, in order of preference, how many instances it has; None if it never told.
        """
        self._back_since = {
            index: self._back_since.get(index, now) for index, count in enumerate(usable) if count
        }
        current = self.current
        if current is None:
            self.current = self._first(usable, now)
        elif not usable[current]:
            self.current = min(self._back_since, default=current)
        else:
            better = (
                i for i, since in self._back_since.items() if i < current and now - since >= HYSTERESIS_S
            )
            self.current = min(better, default=current)
        return self.current

    def due(self, now: float) -> float | None:
        """Return when the choice may change without news, in monotonic seconds; None if it will not."""
        times = [since + HYSTERESIS_S for i, since in self._back_since.items() if i < (self.current or 0)]
        if self.current is None:
            times.append(self._started_at + HYSTERESIS_S)
        return min((at for at in times if at > now), default=None)

    def _first(self, usable: Sequence[int | None], now: float) -> int | None:
        patient = now < self._started_at + HYSTERESIS_S
        for index, count in enumerate(usable):
            if count:
                return index
            if count is None and patient:
                return None
        return None
