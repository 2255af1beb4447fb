"""Mode `leastconn`: the fewest connections per weight.

Theory of operation:

1. The heap holds entries (load, turn, slot). Valid is the one whose load and turn are the slot's. All others
   are leftovers, and are dropped when they surface. (After weights went to and fro two may be the same: the
   first that is picked makes the other a leftover.)
2. `turn` grows with each pick and each change, so among equal loads whoever has waited longest is next:
   ties go round.
3. The heap is rebuilt when leftovers outnumber valid entries, which bounds memory and keeps every
   operation at O(log n) amortised.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, Generic

from dataplane.core.balance.base import Balancer, T

_SLACK: Final = 64
"""Leftovers that are always allowed, so that a small heap is not rebuilt all the time."""


class _Slot(Generic[T]):
    """One target with its valid entry's load and turn."""

    __slots__ = ("load", "target", "turn", "weight")

    def __init__(self, target: T, weight: int, turn: int) -> None:
        self.target = target
        self.weight = weight
        self.turn = turn
        self.load = target.active / weight


class LeastConn(Balancer[T]):
    """Picks the target with the lowest active / weight."""

    tracks_load = True
    __slots__ = ("_heap", "_limit", "_slots", "_turn")

    def __init__(self, members: Sequence[tuple[T, int]], previous: LeastConn[T] | None = None) -> None:
        """Take targets with weights >= 1; `previous` knows who is next among equal loads, else the first is."""
        turns = previous.turns() if previous is not None else {}
        self._turn = max(turns.values(), default=0)
        self._slots: dict[str, _Slot[T]] = {}
        for target, weight in members:
            self._slots[target.id] = _Slot(target, weight, turns.get(target.id) or self._next_turn())
        self._limit = 2 * len(self._slots) + _SLACK
        self._heap: list[tuple[float, int, _Slot[T]]] = []
        self._rebuild()

    def pick(self, key: int, tried: Collection[T]) -> T | None:  # noqa: ARG002 - the key is for `sticky`
        """Return the least loaded target that has not been tried."""
        heap = self._heap
        kept = []
        picked = None
        while heap:
            entry = heap[0]
            slot = entry[2]
            if entry[1] != slot.turn or entry[0] != slot.load:
                heappop(heap)
            elif slot.target in tried:
                kept.append(heappop(heap))
            else:
                slot.turn = self._next_turn()
                heapreplace(heap, (slot.load, slot.turn, slot))
                picked = slot.target
                break
        for entry in kept:
            heappush(heap, entry)
        return picked

    def order(self, key: int) -> Iterator[T]:  # noqa: ARG002 - the key is for `sticky`
        """Yield all targets, least loaded first."""
        for slot in sorted(self._slots.values(), key=lambda slot: (slot.load, slot.turn)):
            yield slot.target

    def changed(self, target: T) -> None:
        """Take the target's load anew."""
        slot = self._slots.get(target.id)
        if slot is None:
            return
        slot.load = target.active / slot.weight
        slot.turn = self._next_turn()
        self._push(slot)

    def reweigh(self, target: T, old: int, new: int) -> bool:  # noqa: ARG002 - the slot knows the old one
        """Take another weight for one target, which keeps its turn among equal loads."""
        slot = self._slots.get(target.id)
        if slot is None:
            return False
        slot.weight = new
        slot.load = target.active / new
        self._push(slot)
        return True

    def turns(self) -> dict[str, int]:
        """Return each target's last turn by id: among equal loads the lowest is next."""
        return {id_: slot.turn for id_, slot in self._slots.items()}

    def _push(self, slot: _Slot[T]) -> None:
        heappush(self._heap, (slot.load, slot.turn, slot))
        if len(self._heap) > self._limit:
            self._rebuild()

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn

    def _rebuild(self) -> None:
        self._heap = [(slot.load, slot.turn, slot) for slot in self._slots.values()]
        heapify(self._heap)
