"""Mode `p2c`: the less loaded of two random choices.

Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (1996): the longest queue grows with
log log n instead of log n, and, unlike `leastconn`, many balancers do not all rush at the same idle backend.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Generic

from dataplane.core.balance.base import T
from dataplane.core.balance.random import Random

__all__ = ["PowerOfTwo"]


class PowerOfTwo(Generic[T]):
    """Draws two different targets by weight and takes the one with the lower active / weight."""

    # `active` is read at the pick, so there is nothing to keep up to date.
    tracks_load = False
    __slots__ = ("_line",)

    def __init__(self, members: Sequence[tuple[T, int]], random: Callable[[], float]) -> None:
        """Take members with weights >= 1 and a source of numbers in [0, 1)."""
        self._line = Random(members, random)

    def pick(self, key: int, tried: Collection[T]) -> T | None:  # noqa: ARG002 - the key is for `sticky`
        """Draw two targets that have not been tried and return the better; a tie goes to the first draw."""
        line = self._line
        if tried:
            without = line.places(tried)
            one = line.draw_without(without)
            other = None if one is None else line.draw_without([*without, one])
        else:
            one = line.draw()
            other = None if one is None else line.draw_other(one)
        if one is None:
            return None
        if other is None or self._load(one) <= self._load(other):
            return line.targets[one]
        return line.targets[other]

    def order(self, key: int) -> Iterator[T]:  # noqa: ARG002 - the key is for `sticky`
        """Yield all targets, the least loaded first."""
        for place in sorted(range(len(self._line.targets)), key=self._load):
            yield self._line.targets[place]

    def changed(self, target: T) -> None:
        """Do nothing: load is read at the pick."""

    def reweigh(self, target: T, old: int, new: int) -> bool:
        """Draw one target as often as its new weight says."""
        return self._line.reweigh(target, old, new)

    def _load(self, place: int) -> float:
        return self._line.targets[place].active / self._line.weights[place]
