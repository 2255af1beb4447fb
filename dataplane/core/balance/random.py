"""Mode `random`: a draw by weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic

from dataplane.core.balance.base import T
from dataplane.core.balance.weights import WeightedDraw

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

__all__ = ["Random"]


class Random(Generic[T]):
    """Picks at random, each target as often as its weight says."""

    tracks_load = False
    __slots__ = ("_wheel",)

    def __init__(self, members: Sequence[tuple[T, int]], random: Callable[[], float]) -> None:
        """Take members with weights >= 1 and a source of numbers in [0, 1)."""
        self._wheel = WeightedDraw(members, random)

    def pick(self, key: int, tried: Collection[T]) -> T | None:  # noqa: ARG002 - the key is for `sticky`
        """Draw a target that has not been tried."""
        wheel = self._wheel
        place = wheel.draw_without(wheel.places(tried)) if tried else wheel.draw()
        return None if place is None else wheel.targets[place]

    def order(self, key: int) -> Iterator[T]:  # noqa: ARG002 - the key is for `sticky`
        """Yield all targets, the likeliest first."""
        wheel = self._wheel
        for place in sorted(range(len(wheel.targets)), key=lambda place: -wheel.weights[place]):
            yield wheel.targets[place]

    def changed(self, target: T) -> None:
        """Do nothing: load does not matter here."""

    def reweigh(self, target: T, old: int, new: int) -> bool:  # noqa: ARG002 - the line knows the old one
        """Draw one target as often as its new weight says."""
        return self._wheel.reweigh(target, new)
