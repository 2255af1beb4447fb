"""Mode `rr`: smooth weighted round robin.

Theory of operation:

1. Targets of equal weight form a group, a ring that is served in turn. A group of m targets of weight w
   has m * w turns in a period, which lasts as many picks as all groups have turns.
2. The k-th turn of a group has a window, from k to k + 1 times the group's interval. Among those whose
   windows have opened, the one whose window closes first is served. This is proportionate fair scheduling
   (Baruah et al., "Proportionate Progress", Algorithmica 1996) of one processor: every turn falls into its
   window. So after any number of picks each target is less than one pick away from its exact share, and
   in any period since the first build it gets exactly its weight.
3. Time is in integers, `SLOT` to a pick, so nothing drifts.
4. A pick costs O(1) if all weights are equal, else O(log g) amortised for g different weights (at most 256,
   or more while somebody ramps up); the number of targets does not matter.
5. A rebuild keeps each target's distance to its next turn, measured in its own intervals, so nobody
   starts again and nobody gets two turns for one. A newcomer waits for one turn of its group, behind all
   others of its weight.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final, Generic

from dataplane.core.balance.base import T

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

__all__ = ["RoundRobin"]

SLOT: Final = 1 << 32
"""Time from one pick to the next: fine enough to put all windows in order."""


class _Group(Generic[T]):
    """The targets of one weight, served in turn."""

    __slots__ = ("base", "cursor", "period", "ring", "rounds", "turns", "weight")

    def __init__(self, ring: list[T], weight: int, base: int, period: int) -> None:
        self.ring = ring
        self.weight = weight
        self.base = base
        self.period = period
        self.turns = len(ring) * weight
        self.rounds = 0
        self.cursor = 0

    def window(self) -> tuple[int, int]:
        """Return when the window of the next turn opens and closes."""
        opens = self.base + self.rounds * self.period // self.turns
        return opens, self.base + (self.rounds + 1) * self.period // self.turns

    def take(self) -> T:
        """Serve the one whose turn it is."""
        target = self.ring[self.cursor]
        self.cursor = (self.cursor + 1) % len(self.ring)
        self.rounds += 1
        return target

    def distances(self, now: int) -> Iterator[tuple[str, float]]:
        """Return everybody's id, next first, with the distance to the next window in own intervals."""
        ring, size = self.ring[self.cursor :] + self.ring[: self.cursor], len(self.ring)
        lead = (self.window()[0] - now) * self.weight / self.period
        return zip([target.id for target in ring], [lead + k / size for k in range(size)], strict=True)

    def copy(self) -> _Group[T]:
        """Return a group that can run ahead of this one."""
        twin = _Group(self.ring, self.weight, self.base, self.period)
        twin.rounds, twin.cursor = self.rounds, self.cursor
        return twin


class RoundRobin(Generic[T]):
    """Serves targets in turn, each as often as its weight says."""

    tracks_load = False
    __slots__ = ("_groups", "_horizon", "_ready", "_solo", "_waiting")

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
        period = sum([weight for _, weight in members]) * SLOT
        groups = [_build_group(group, weight, period, distances) for weight, group in by_weight.items()]
        # What some are behind, others are ahead: so somebody's window is always open, and nobody is late.
        now = sum(group.base * group.turns for group in groups) * SLOT // period if groups else 0
        self._start(groups, now)

    def pick(self, key: int, tried: Collection[T]) -> T | None:  # noqa: ARG002 - the key is for `sticky`
        """Serve the one whose turn it is, or the next one that has not been tried."""
        solo = self._solo
        if solo is not None:
            target = solo.ring[solo.cursor]
            if not tried or target not in tried:
                # Time and turns of a lone group go together: neither needs to be counted.
                solo.cursor = (solo.cursor + 1) % len(solo.ring)
                return target
        elif self._ready:
            group = self._groups[self._ready[0][2]]
            if not tried or group.ring[group.cursor] not in tried:
                return self._serve(heappop(self._ready)[2])
        return self._pick_around(tried)

    def order(self, key: int) -> Iterator[T]:  # noqa: ARG002 - the key is for `sticky`
        """Yield everybody in the order of the turns, each once."""
        twin: RoundRobin[T] = RoundRobin(())
        twin._start([group.copy() for group in self._groups], self._horizon - SLOT)
        left = [len(group.ring) for group in self._groups]
        while (place := twin._next()) is not None:
            left[place] -= 1
            yield twin._serve(place, again=left[place] > 0)

    def changed(self, target: T) -> None:
        """Do nothing: load does not matter here."""

    def distances(self) -> dict[str, float]:
        """Return by id how far each target is from its next turn's window, in its own intervals."""
        now = self._horizon - SLOT
        distances: dict[str, float] = {}
        for group in self._groups:
            distances.update(group.distances(now))
        return distances

    def _start(self, groups: list[_Group[T]], now: int) -> None:
        self._groups = groups
        self._solo = groups[0] if len(groups) == 1 else None
        self._ready: list[tuple[int, int, int]] = []
        """Heap of (end of window, turns, group): a tie goes to the one with fewer turns to come."""
        self._waiting = [(group.window()[0], group.turns, place) for place, group in enumerate(groups)]
        """Heap of (start of window, turns, group)."""
        heapify(self._waiting)
        self._horizon = now + SLOT
        """Windows that open before it are open."""
        self._open_windows()

    def _open_windows(self) -> None:
        waiting, horizon = self._waiting, self._horizon
        while waiting and waiting[0][0] < horizon:
            _, turns, place = heappop(waiting)
            heappush(self._ready, (self._groups[place].window()[1], turns, place))

    def _next(self) -> int | None:
        """Take the group that is next out of its heap."""
        heap = self._ready or self._waiting
        return heappop(heap)[2] if heap else None

    def _serve(self, place: int, *, again: bool = True) -> T:
        """Serve a group that has been taken out of its heap, and put it back if it shall be served again."""
        group = self._groups[place]
        target = group.take()
        if again:
            heappush(self._waiting, (group.window()[0], group.turns, place))
        self._horizon += SLOT
        self._open_windows()
        return target

    def _pick_around(self, tried: Collection[T]) -> T | None:
        """Serve the next one that has not been tried; the tried ones before it keep their turns."""
        for heap in (self._ready, self._waiting):
            for entry in sorted(heap):
                group = self._groups[entry[2]]
                ring, cursor, size = group.ring, group.cursor, len(group.ring)
                for offset in range(size):
                    at = (cursor + offset) % size
                    if ring[at] not in tried:
                        ring[at], ring[cursor] = ring[cursor], ring[at]
                        heap.remove(entry)
                        heapify(heap)
                        return self._serve(entry[2])
        return None


def _build_group(members: list[T], weight: int, period: int, distances: dict[str, float] | None) -> _Group[T]:
    """Put those that were in the rotation in the order of their turns, and newcomers behind them."""
    if distances is None:
        return _Group(members, weight, 0, period)
    interval = period / weight
    gap = interval / len(members)
    ring = [target for target in members if target.id in distances]
    ring.sort(key=lambda target: distances[target.id])
    first = distances[ring[0].id] * interval if ring else gap
    if len(ring) < len(members):
        ring += [target for target in members if target.id not in distances]
    return _Group(ring, weight, int(max(-gap, min(first, gap))), period)
