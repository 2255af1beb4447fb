"""Mode `p2c`: the less loaded of two random choices.

Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (1996): the longest queue grows with
log log n instead of log n, and, unlike `leastconn`, many balancers do not all rush at the same idle backend.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from dataplane.core.balance.base import T
from dataplane.core.balance.random import Random


class PowerOfTwo(Random[T]):
    """Draws two different targets by weight and takes the one with the lower active / weight, which is read at the pick."""

    __slots__ = ()

    def pick(self, key: int, tried: Collection[T]) -> T | None:  # noqa: ARG002 - the key is for `sticky`
        """Draw two targets that have not been tried and return the better; a tie goes to the first draw."""
        if tried:
            without = self.places(tried)
            one = self.draw_without(without)
            other = None if one is None else self.draw_without([*without, one])
        else:
            one = self.draw()
            other = None if one is None else self.draw_other(one)
        if one is None:
            return None
        if other is None or self._load(one) <= self._load(other):
            return self.targets[one]
        return self.targets[other]

    def order(self, key: int) -> Iterator[T]:  # noqa: ARG002 - the key is for `sticky`
        """Yield all targets, the least loaded first."""
        for place in sorted(range(len(self.targets)), key=self._load):
            yield self.targets[place]

    def _load(self, place: int) -> float:
        return self.targets[place].active / self.weights[place]
