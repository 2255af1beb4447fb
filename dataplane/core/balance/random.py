"""Mode `random`: a draw by weight, and the line of weights that `p2c` draws from, too."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import accumulate

from dataplane.core.balance.base import Balancer, T


class Random(Balancer[T]):
    """Targets on a line, each as long as its weight; a pick is a random point on it.

    O(log n). Those that are left out are cut from the line, so a draw is exact and never repeated.
    """

    __slots__ = ("_ends", "_places", "_random", "targets", "weights")

    def __init__(self, members: Sequence[tuple[T, int]], random: Callable[[], float]) -> None:
        """Take members with weights >= 1 and a source of numbers in [0, 1)."""
        self.targets = tuple(target for target, _ in members)
        self.weights = [weight for _, weight in members]
        self._ends = list(accumulate(self.weights))
        self._places = {target.id: place for place, target in enumerate(self.targets)}
        self._random = random

    def places(self, targets: Collection[T]) -> set[int]:
        """Return where these targets are; strangers are left out."""
        return {place for target in targets if (place := self._places.get(target.id)) is not None}

    def pick(self, key: int, tried: Collection[T]) -> T | None:  # noqa: ARG002 - the key is for `sticky`
        """Draw a target that has not been tried."""
        place = self.draw_without(self.places(tried)) if tried else self.draw()
        return None if place is None else self.targets[place]

    def order(self, key: int) -> Iterator[T]:  # noqa: ARG002 - the key is for `sticky`
        """Yield all targets, the likeliest first."""
        for place in sorted(range(len(self.targets)), key=lambda place: -self.weights[place]):
            yield self.targets[place]

    def reweigh(self, target: T, old: int, new: int) -> bool:  # noqa: ARG002 - the line knows the old one
        """Draw one target as often as its new weight says, O(n) in additions."""
        place = self._places.get(target.id)
        if place is None:
            return False
        self.weights[place] = new
        self._ends = list(accumulate(self.weights))
        return True

    def draw(self) -> int | None:
        """Draw a place by weight; None if there is none."""
        ends = self._ends
        return bisect_right(ends, int(self._random() * ends[-1])) if ends else None

    def draw_other(self, one: int) -> int | None:
        """Draw any place but this one by weight; None if there is none."""
        ends, weight = self._ends, self.weights[one]
        if len(ends) == 1:
            return None
        point = int(self._random() * (ends[-1] - weight))
        return bisect_right(ends, point if point < ends[one] - weight else point + weight)

    def draw_without(self, places: Collection[int]) -> int | None:
        """Draw any place but these, each named once, by weight; None if there is none."""
        if len(places) == len(self.targets):
            return None
        point = int(self._random() * (self._ends[-1] - sum([self.weights[place] for place in places])))
        for place in sorted(places):
            if point < self._ends[place] - self.weights[place]:
                break
            point += self.weights[place]
        return bisect_right(self._ends, point)
