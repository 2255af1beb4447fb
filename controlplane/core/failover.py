"""Which datacenter of an ordered list serves: the first that has instances, and no hurry to go back.

A datacenter is left only when it is known to be empty, which its guard has confirmed, never because it cannot be
asked: a registry that is silent says nothing about its services. The one exception is the start: a datacenter
that has never answered does not keep the next from serving for longer than the hysteresis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Failover"]


class Failover:
    """The choice among datacenters, by index."""

    __slots__ = ("_back_since", "_hysteresis_s", "_started_at", "current")

    def __init__(self, now: float, *, hysteresis_s: float = 30.0) -> None:
        """Start without a choice; a better datacenter is chosen again once it has had instances for `hysteresis_s`."""
        self.current: int | None = None
        """The index that serves; None before the first choice."""
        self._hysteresis_s = hysteresis_s
        self._started_at = now
        self._back_since: dict[int, float] = {}

    def choose(self, usable: Sequence[int | None], now: float) -> int | None:
        """Choose among the datacenters.

        Args:
            usable: For each, in order of preference, how many instances it has; None if it never told.
            now: Monotonic seconds.

        Returns:
            The index that serves; None as long as none can be chosen.
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
                i
                for i, since in self._back_since.items()
                if i < current and now - since >= self._hysteresis_s
            )
            self.current = min(better, default=current)
        return self.current

    def due(self, now: float) -> float | None:
        """Return when the choice may change without news, in monotonic seconds; None if it will not."""
        times = [
            since + self._hysteresis_s for i, since in self._back_since.items() if i < (self.current or 0)
        ]
        if self.current is None:
            times.append(self._started_at + self._hysteresis_s)
        return min((at for at in times if at > now), default=None)

    def _first(self, usable: Sequence[int | None], now: float) -> int | None:
        patient = now < self._started_at + self._hysteresis_s
        for index, count in enumerate(usable):
            if count:
                return index
            if count is None and patient:
                return None
        return None
