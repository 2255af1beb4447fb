"""Mode `sticky`: the same client goes to the same backend.

Theory of operation:

1. A client's key leads to a slot of the table, and the slot to its owner. If the owner is usable, that is
   the pick.
2. If not, the key is scrambled and looked up again, and so on: a client has its own endless, fixed sequence
   of choices, in which each backend is as frequent as its weight says. It takes the first usable one. So the
   clients of a lost backend spread over all others, come back to it when it does, and nobody else moves.
3. After `CHOICES` misses, which takes a set of which nearly everything is unusable, rendezvous hashing
   (Thaler and Ravishankar, 1998; weighted as in Schindelhauer and Schomaker, 2005) among the usable
   ones decides: as fixed, and O(n) in those that are left.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Generator, Iterator, Sequence
from dataclasses import dataclass
from math import log
from typing import Final

from xxhash import xxh3_64_intdigest

from dataplane.core.balance.base import Balancer, T
from dataplane.core.balance.sticky_table import CHOICES, SLOTS, StickyTable, next_key


class Sticky(Balancer[T]):
    """Picks by the client's key; has no memory of its own."""

    __slots__ = ("_members", "_slots", "_usable")

    def __init__(self, members: Sequence[tuple[T, int]], table: StickyTable | None) -> None:
        """Lay the usable members, with weights >= 1, over the table of the configured set.

        A member that is not in it is picked only when no other is left; so None, an empty table, works, in O(n).
        """
        self._members = tuple(members)
        by_id = {target.id: target for target, _ in members}
        self._usable = () if table is None else tuple(map(by_id.get, table.ids))
        self._slots = () if table is None else table.slots

    def pick(self, key: int, tried: Collection[T]) -> T | None:
        """Return the first of the client's choices that is usable and has not been tried."""
        slots = self._slots
        if slots and self._members:
            usable = self._usable
            choice = key
            for _ in range(CHOICES):
                target = usable[slots[choice % SLOTS]]
                if target is not None and target not in tried:
                    return target
                choice = next_key(choice)
        left = [(target, weight) for target, weight in self._members if target not in tried]
        if not left:
            return None
        return min(left, key=lambda member: _distance(key, *member))[0]

    def order(self, key: int) -> Iterator[T]:
        """Yield all usable targets in the order of the client's choices."""
        yielded: set[str] = set()
        choice = key
        for _ in range(CHOICES if self._slots else 0):
            target = self._usable[self._slots[choice % SLOTS]]
            if target is not None and target.id not in yielded:
                yielded.add(target.id)
                yield target
            choice = next_key(choice)
        left = [(target, weight) for target, weight in self._members if target.id not in yielded]
        for target, _ in sorted(left, key=lambda member: _distance(key, *member)):
            yield target

    def reweigh(self, target: T, old: int, new: int) -> bool:  # noqa: ARG002 - it needs another table
        """Ask for a new balancer: another weight means another table."""
        return False


def _distance(key: int, target: T, weight: int) -> float:
    """Return an exponentially distributed number with rate `weight`: the least one wins."""
    return -log((xxh3_64_intdigest(target.id.encode(), key) + 1) / (1 << 64)) / weight


# --- how many clients a change would move ----------------------------------------------------------

_SLICE: Final = 1024
"""Slots between two yields: about 0.3 ms while owners are usable."""
_SECOND_CHOICES: Final = 32
"""Slots between two yields where owners are not: each takes two picks, up to 20 us."""


@dataclass(frozen=True, slots=True)
class _Named:
    """A backend of which only the id is known."""

    id: str
    active: int = 0


def moved_share_steps(
    old: StickyTable, new: StickyTable, old_usable: Container[str], new_usable: Container[str]
) -> Generator[None, None, float]:
    """Find the share of clients, 0..1, whose backend differs between two configurations; the generator returns it.

    It yields after slices of less than a millisecond. `old_usable` and `new_usable` have the ids of usable backends; what
    is not in the table does not matter. Every slot counts once: exactly where its owners are usable, else by the second
    choices of one of its clients. An empty table, or nobody usable, counts as a backend of its own.
    """
    before, after = _balancer(old, old_usable), _balancer(new, new_usable)
    old_ids = [id_ if id_ in old_usable else None for id_ in old.ids] or [None]
    new_ids = [id_ if id_ in new_usable else None for id_ in new.ids] or [None]
    old_slots, new_slots = old.slots or bytes(SLOTS), new.slots or bytes(SLOTS)
    moved = cost = 0
    yield
    for slot in range(SLOTS):
        was, will = old_ids[old_slots[slot]], new_ids[new_slots[slot]]
        cost += 1
        if was is None or will is None:
            key = slot + SLOTS * (next_key(slot) >> 18)
            was_target, will_target = before.pick(key, ()), after.pick(key, ())
            was = None if was_target is None else was_target.id
            will = None if will_target is None else will_target.id
            cost += _SLICE // _SECOND_CHOICES
        moved += was != will
        if cost >= _SLICE:
            cost = 0
            yield
    return moved / SLOTS


def _balancer(table: StickyTable, usable: Container[str]) -> Sticky[_Named]:
    members = zip(table.ids, table.weights, strict=True)
    return Sticky([(_Named(id_), weight) for id_, weight in members if id_ in usable], table)
