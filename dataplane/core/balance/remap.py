"""How many sticky clients a change would move."""

from __future__ import annotations

from collections.abc import Container, Generator
from dataclasses import dataclass
from typing import Final

from dataplane.core.balance.sticky import Sticky
from dataplane.core.balance.sticky_table import SLOTS, StickyTable, next_key

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
    is not in the table does not matter. Every slot counts once: exactly where its owners are usable, else by the second choices of one of its
    clients. An empty table, or nobody usable, counts as a backend of its own.
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
