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
6. Another weight for one target moves it from one ring to another and keeps all distances likewise, after a
   search for its place in the ring. The windows are made anew, O(g), when the next pick asks for them: a
   thousand weights changed between two picks cost no more than one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import floor
from typing import Final, Generic

from dataplane.core.balance.base import Balancer, T

SLOT: Final = 1 << 32
"""Time from one pick to the next: fine enough to put all windows in order."""


class _Group(Generic[T]):
    """The targets of one weight, served in turn."""

    __slots__ = ("base", "cursor", "period", "ring", "rounds", "turns", "weight")

    def __init__(self, ring: list[T], weight: int, lead: float, period: int, cursor: int = 0) -> None:
        """Begin with the one at `cursor`, whose window opens `lead` of its own intervals after time 0, or nearly so.

        More than one turn of the group, before or after, is neither owed nor due.
        """
        gap = 1 / len(ring)
        self.ring = ring
        self.weight = weight
        self.base = int(max(-gap, min(lead, gap)) * period / weight)
        self.period = period
        self.turns = len(ring) * weight
        self.rounds = 0
        self.cursor = cursor

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

    def lead(self, now: int) -> float:
        """Return how far the next window is away, in the group's own intervals."""
        return (self.window()[0] - now) * self.weight / self.period

    def distances(self, now: int) -> Iterator[tuple[str, float]]:
        """Return everybody's id, next first, with the distance to the next window in own intervals."""
        ring, size = self.ring[self.cursor :] + self.ring[: self.cursor], len(self.ring)
        lead = self.lead(now)
        return zip([target.id for target in ring], [lead + k / size for k in range(size)], strict=True)

    def copy(self) -> _Group[T]:
        """Return a group that can run ahead of this one."""
        twin: _Group[T] = _Group(self.ring, self.weight, 0.0, self.period, self.cursor)
        twin.base, twin.rounds = self.base, self.rounds
        return twin


class RoundRobin(Balancer[T]):
    """Serves targets in turn, each as often as its weight says."""

    __slots__ = ("_groups", "_horizon", "_moved", "_ready", "_solo", "_waiting", "_weights")

    _solo: _Group[T] | None
    _moved: dict[T, int]
    """Whose weight was changed since the last pick, with the weight of its ring."""
    _ready: list[tuple[int, int, int]]
    """Heap of (end of window, turns, group): a tie goes to the one with fewer turns to come."""

    def __init__(self, members: Sequence[tuple[T, int]], previous: RoundRobin[T] | None = None) -> None:
        """Take targets with weights >= 1; whose turn it was `previous` knows, else the first begins."""
        self._weights = dict(members)
        distances = previous.distances() if previous is not None else None
        by_weight: dict[int, list[T]] = {}
        for target, weight in members:
            by_weight.setdefault(weight, []).append(target)
        period = sum([weight for _, weight in members]) * SLOT
        self._begin(
            [_build_group(group, weight, period, distances) for weight, group in by_weight.items()], period
        )

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
        self._move()
        twin: RoundRobin[T] = RoundRobin(())
        twin._start([group.copy() for group in self._groups], self._horizon - SLOT)
        left = [len(group.ring) for group in self._groups]
        while (place := twin._next()) is not None:
            left[place] -= 1
            yield twin._serve(place, again=left[place] > 0)

    def reweigh(self, target: T, old: int, new: int) -> bool:
        """Move one target from the ring of its weight to another; everybody's distance to the next turn stays."""
        if self._weights.get(target) != old:
            return False
        self._weights[target] = new
        self._moved.setdefault(target, old)
        self._solo, self._ready = None, []  # so that the next pick looks
        return True

    def distances(self) -> dict[str, float]:
        """Return by id how far each target is from its next turn's window, in its own intervals."""
        self._move()
        now = self._horizon - SLOT
        distances: dict[str, float] = {}
        for group in self._groups:
            distances.update(group.distances(now))
        return distances

    def _begin(self, groups: list[_Group[T]], period: int) -> None:
        # What some are behind, others are ahead: so somebody's window is always open, and nobody is late.
        now = sum(group.base * group.turns for group in groups) * SLOT // period if groups else 0
        self._start(groups, now)

    def _open_rings(self) -> dict[int, _Ring[T]]:
        now = self._horizon - SLOT
        return {group.weight: _Ring(group.ring, group.cursor, group.lead(now)) for group in self._groups}

    def _move(self) -> None:
        """Move everybody whose weight was changed, once, and make the windows anew."""
        if not self._moved:
            return
        rings = self._open_rings()
        for target, old in self._moved.items():
            new = self._weights[target]
            if new != old:  # it may have come back: then it has never moved
                distance = rings[old].take_out(target)
                if not rings[old].targets:
                    del rings[old]
                rings.setdefault(new, _Ring([], 0, distance)).put_in(target, distance)
        self._close_rings(rings)

    def _close_rings(self, rings: dict[int, _Ring[T]]) -> None:
        period = sum(len(ring.targets) * weight for weight, ring in rings.items()) * SLOT
        self._begin(
            [_Group(ring.targets, weight, ring.lead, period, ring.cursor) for weight, ring in rings.items()],
            period,
        )

    def _start(self, groups: list[_Group[T]], now: int) -> None:
        self._groups = groups
        self._moved = {}
        self._solo = groups[0] if len(groups) == 1 else None
        self._ready = []
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
        """Serve the next one that has not been tried; the tried ones before it keep their turns.

        Of turns that pile up while nobody wants one, each group keeps one: the windows are made anew for that.
        """
        if self._moved:
            self._move()
            return self.pick(0, tried)
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
                        target = self._serve(entry[2])
                        if heap is self._waiting:
                            self._close_rings(self._open_rings())
                        return target
        return None


@dataclass(slots=True, eq=False)
class _Ring(Generic[T]):
    """A group while it is changed: who is in it, whose turn is next, and how far that is away (own intervals)."""

    targets: list[T]
    cursor: int
    lead: float

    def take_out(self, target: T) -> float:
        """Remove `target` and return its distance."""
        targets, size = self.targets, len(self.targets)
        at = targets.index(target)
        distance = self.lead + (at - self.cursor) % size / size
        del targets[at]
        if at == self.cursor:
            self.lead += 1 / size
        elif at < self.cursor:
            self.cursor -= 1
        if self.cursor == len(targets):
            self.cursor = 0
        return distance

    def put_in(self, target: T, distance: float) -> None:
        """Add `target` behind those that are as near or nearer."""
        size = len(self.targets)
        nearer = max(0, min(size, floor((distance - self.lead) * size) + 1))
        if nearer == 0:
            self.lead = distance
        at = self.cursor + nearer
        if at > size:
            at -= size
            self.cursor += 1
        self.targets.insert(at, target)


def _build_group(members: list[T], weight: int, period: int, distances: dict[str, float] | None) -> _Group[T]:
    """Put those that were in the rotation in the order of their turns, and newcomers behind them."""
    if distances is None:
        return _Group(members, weight, 0.0, period)
    ring = [target for target in members if target.id in distances]
    ring.sort(key=lambda target: distances[target.id])
    lead = distances[ring[0].id] if ring else 1.0
    if len(ring) < len(members):
        ring += [target for target in members if target.id not in distances]
    return _Group(ring, weight, lead, period)
