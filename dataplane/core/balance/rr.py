"""Mode `rr`: smooth weighted round robin.

Theory of operation:

1. Targets of equal weight form a group, a ring that is served in turn. A group of m targets of weight w
   is due m * w times per period, at even distances. The group that is due next is served.
2. Due times are integers, and a group's repeat exactly after one `PERIOD`. So every window of as many
   picks as there are turns in a period holds exactly w turns of each target, wherever it begins.
3. The first turn of a group comes after half its distance (Webster's method of apportionment), so that
   groups interleave instead of starting together.
4. A pick costs O(1) if all weights are equal, else O(log g) for g different weights (at most 256, or
   4096 while somebody ramps up); the number of targets does not matter.
5. A rebuild keeps each target's distance to its next turn, measured in its own intervals, so nobody
   starts again and nobody gets two turns for one. A newcomer waits one interval, behind all others
   of its weight.
"""

from __future__ import annotations

from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING, Final, Generic

from dataplane.core.balance.base import T

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

__all__ = ["RoundRobin"]

PERIOD: Final = 1 << 48
"""Integer time in which each target has as many turns as its weight says: fine enough to order them all."""


class _Group(Generic[T]):
    """The targets of one weight, served in turn."""

    __slots__ = ("base", "cursor", "ring", "rounds", "turns", "weight")

    def __init__(self, ring: list[T], weight: int, base: int) -> None:
        self.ring = ring
        self.weight = weight
        self.turns = len(ring) * weight
        self.base = base
        self.rounds = 0
        self.cursor = 0

    def due(self) -> int:
        """Return the time of the next turn."""
        return self.base + self.rounds * PERIOD // self.turns

    def take(self) -> T:
        """Serve the one whose turn it is."""
        target = self.ring[self.cursor]
        self.cursor = (self.cursor + 1) % len(self.ring)
        self.rounds += 1
        return target

    def distances(self, now: int) -> Iterator[tuple[T, float]]:
        """Yield everybody, next first, with the distance to the next turn in own intervals."""
        lead = (self.due() - now) * self.weight / PERIOD
        size = len(self.ring)
        for offset in range(size):
            yield self.ring[(self.cursor + offset) % size], lead + offset / size


def _build_group(members: list[T], weight: int, distances: dict[str, float] | None) -> _Group[T]:
    """Put those that were in the rotation in the order of their turns, and newcomers behind them."""
    interval = PERIOD / weight
    gap = interval / len(members)
    if distances is None:
        return _Group(members, weight, int(gap / 2))
    ring = sorted((target for target in members if target.id in distances), key=lambda one: distances[one.id])
    first = distances[ring[0].id] * interval if ring else gap
    ring += (target for target in members if target.id not in distances)
    return _Group(ring, weight, int(min(first, gap)))


class RoundRobin(Generic[T]):
    """Serves targets in turn, each as often as its weight says."""

    tracks_load = False
    __slots__ = ("_heap",)

    def __init__(self, members: Sequence[tuple[T, int]], previous: RoundRobin[T] | None = None) -> None:
        """Build the rotation.

        Args:
            members: Targets and weights >= 1.
            previous: Whose turn it was so far; None: start with the first.
        """
        distances = previous.distances() if previous is not None else None
        by_weight: dict[int, list[T]] = {}
        for target, weight in members:
            by_weight.setdefault(weight, []).append(target)
        groups = [_build_group(group, weight, distances) for weight, group in by_weight.items()]
        # A tie goes to the group with fewer turns: the other one has another turn soon.
        self._heap = [(group.due(), group.turns, place, group) for place, group in enumerate(groups)]
        heapify(self._heap)

    def pick(self, key: int, tried: Collection[T]) -> T | None:  # noqa: ARG002 - the key is for `sticky`
        """Serve the one whose turn it is, or the next one that has not been tried."""
        heap = self._heap
        if not heap:
            return None
        _, turns, place, group = heap[0]
        if tried and group.ring[group.cursor] in tried:
            return self._pick_around(tried)
        target = group.take()
        if len(heap) > 1:
            heapreplace(heap, (group.due(), turns, place, group))
        return target

    def order(self, key: int) -> Iterator[T]:  # noqa: ARG002 - the key is for `sticky`
        """Yield everybody in the order of the turns, each once."""
        left = sorted(self._heap)
        taken = [0] * len(left)
        heap = [(due, turns, place, at) for at, (due, turns, place, _) in enumerate(left)]
        while heap:
            _, turns, place, at = heap[0]
            group = left[at][3]
            size = len(group.ring)
            yield group.ring[(group.cursor + taken[at]) % size]
            taken[at] += 1
            if taken[at] < size:
                due = group.base + (group.rounds + taken[at]) * PERIOD // turns
                heapreplace(heap, (due, turns, place, at))
            else:
                heappop(heap)

    def changed(self, target: T) -> None:
        """Do nothing: load does not matter here."""

    def distances(self) -> dict[str, float]:
        """Return by id how far each target is from its next turn, in its own intervals (0..1)."""
        if not self._heap:
            return {}
        now = self._heap[0][0]
        return {target.id: distance for *_, group in self._heap for target, distance in group.distances(now)}

    def _pick_around(self, tried: Collection[T]) -> T | None:
        """Serve the next one that has not been tried; the tried ones before it keep their turns."""
        for entry in sorted(self._heap):
            _, turns, place, group = entry
            ring, cursor, size = group.ring, group.cursor, len(group.ring)
            for offset in range(size):
                at = (cursor + offset) % size
                if ring[at] not in tried:
                    ring[at], ring[cursor] = ring[cursor], ring[at]
                    target = group.take()
                    self._heap[self._heap.index(entry)] = (group.due(), turns, place, group)
                    heapify(self._heap)
                    return target
        return None
