"""Which backend owns which clients: a weighted Maglev table over the configured set.

Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016), section 3.4. Each
backend has its own permutation of the slots. In turn, as often as its weight says, each claims the first
free slot of its permutation. When a backend goes, nearly all others find the same slots free as before.

Turns are at absolute times, (k + phase) / weight for the k-th, so whose turn comes first among any two
backends does not depend on a third one; with rounds counted by the heaviest weight it would.

Why 131,071 slots, twice the usual 65,537: seeds and victims drawn at random, N = 2..1000, weights equal or
random in 1..10, worst case of each:

    slots    others that move when one goes    a share's error, N <= 100   N = 1000      build
    65,537    1.2 % (unequal, N = 600)          0.7 %                       8 %        40-90 ms
    131,071   0.9 % (unequal, N = 600)          0.3 %                       4 %       60-200 ms
    262,139   0.7 %                             0.1 %                       2 %      200-600 ms

The contract is 1 %. Plain rendezvous over slots moves nobody else, but its shares err by 7 to 12 % at
N = 100, and corrected for that it is no better than Maglev and slower; a ring of points needs 2,700
points for each backend to come within 5 %.
"""

from __future__ import annotations

from array import array
from heapq import merge
from itertools import count, islice
from typing import TYPE_CHECKING, Final, TypeVar

from xxhash import xxh3_64_intdigest, xxh3_128, xxh3_128_intdigest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

__all__ = ["CHOICES", "SLOTS", "StickyTable", "client_key", "finish", "next_key"]

R = TypeVar("R")

SLOTS: Final = 131_071
"""A prime, so that every step from 1 to SLOTS - 1 visits all slots."""

CHOICES: Final = 128
"""Slots that a client looks at before giving up on the table: if 5 % are usable, one client in 700 does."""

_ENDGAME: Final = 256
"""With so few free slots left, computing where a permutation meets them is cheaper than walking it."""
_SLICE: Final = 512
"""Turns, or members, between two yields: about half a millisecond."""
_SHIFT: Final = 16
"""Binary places of a turn's time; whole units are rounds."""
_WORD: Final = (1 << 64) - 1


def client_key(ip: bytes, seed: str) -> int:
    """Return the 64-bit hash that stands for a client.

    Args:
        ip: The address in network order, 4 or 16 bytes. An IPv4 address mapped into IPv6 must come as 4.
        seed: The service's; without it a client could aim at a backend.
    """
    return xxh3_64_intdigest(ip, xxh3_64_intdigest(seed.encode()))


def next_key(key: int) -> int:
    """Return the key under which a client looks for its next choice.

    One step of a 64-bit linear congruential generator; the multiplier is from Steele and Vigna,
    "Computationally easy, spectrally good multipliers" (2021).
    """
    return (key * 0xD1342543DE82EF95 + 0x9E3779B97F4A7C15) & _WORD


class StickyTable:
    """Who owns each slot; immutable once built.

    It depends on ids, weights and the seed alone: not on health, operator state, or the order of input.
    """

    __slots__ = ("digest", "ids", "slots", "weights")

    def __init__(self, ordered: Sequence[tuple[str, int]], slots: array[int], seed: str) -> None:
        """Wrap finished slots; `build` makes them.

        Args:
            ordered: The members with their weights, sorted.
            slots: SLOTS indexes into `ordered`; empty if there are no members.
            seed: What keyed them.
        """
        self.ids = tuple([id_ for id_, _ in ordered])
        self.weights = tuple([weight for _, weight in ordered])
        self.slots = slots
        digest = xxh3_128(repr((seed, self.ids)).encode())
        digest.update(slots)
        self.digest = digest.hexdigest()

    @classmethod
    def build(cls, members: Sequence[tuple[str, int]], seed: str) -> Generator[None, None, StickyTable]:
        """Build a table in slices of about half a millisecond; the generator returns it.

        Args:
            members: Ids, each once, and weights >= 1, in any order.
            seed: Keys the permutations; the same as for `client_key`.

        Yields:
            None after each slice, so that the caller can let others run.
        """
        ordered = yield from _sort(members)
        if len(ordered) < 2:  # noqa: PLR2004 - nobody to share with
            return cls(ordered, array("B", bytes(SLOTS if ordered else 0)), seed)
        owners = yield from _claim(ordered, xxh3_64_intdigest(seed.encode()))
        yield
        return cls(ordered, owners, seed)

    @classmethod
    def build_now(cls, members: Sequence[tuple[str, int]], seed: str) -> StickyTable:
        """Build a table in one go: up to 0.3 s for 10,000 members."""
        return finish(cls.build(members, seed))

    def owner(self, key: int) -> int | None:
        """Return the index in `ids` of this key's owner; None if the table is empty."""
        return self.slots[key % SLOTS] if self.slots else None


def _sort(members: Sequence[tuple[str, int]]) -> Generator[None, None, list[tuple[str, int]]]:
    """Sort in slices: 10,000 members at once take 3 ms."""
    runs = []
    for start in range(0, len(members), _SLICE):
        runs.append(sorted(members[start : start + _SLICE]))
        yield
    ordered: list[tuple[str, int]] = []
    for member in merge(*runs):
        ordered.append(member)
        if len(ordered) % _SLICE == 0:
            yield
    return ordered


class _Member:
    """One backend while a table is built."""

    __slots__ = ("due", "index", "interval", "place", "step")

    def __init__(self, index: int, id_: str, interval: int, seed: int) -> None:
        """Derive the permutation and the phase from the id alone.

        Args:
            index: Its place in the sorted ids.
            id_: Its id.
            interval: Rounds between two turns, as a binary fraction of `_SHIFT` places.
            seed: 64 bits.
        """
        bits = xxh3_128_intdigest(id_.encode(), seed)
        self.index = index
        self.place = (bits >> 96) % SLOTS
        self.step = (bits >> 64 & 0xFFFFFFFF) % (SLOTS - 1) + 1
        self.interval = interval
        self.due = (bits & 0xFFFFFFFF) * interval >> 32

    def walk(self, taken: bytearray) -> int:
        """Return the first free slot of the permutation."""
        place, step = self.place, self.step
        while taken[place]:
            place += step
            if place >= SLOTS:
                place -= SLOTS
        self.place = place
        return place

    def leap(self, free: list[int]) -> int:
        """Return what `walk` would, from the few slots that are free."""
        # place + hops * step = slot (mod SLOTS), solved for hops; the fewest hops win.
        inverse = pow(self.step, -1, SLOTS)
        place = self.place
        return min(free, key=lambda slot: (slot - place) * inverse % SLOTS)


def _turns(members: list[_Member]) -> Iterator[_Member]:
    """Yield whose turn it is, for ever: O(1) a turn, by a calendar of rounds."""
    calendar: dict[int, list[_Member]] = {}
    for member in members:
        calendar.setdefault(member.due >> _SHIFT, []).append(member)
    for now in count():
        for member in calendar.pop(now, ()):
            yield member
            member.due += member.interval
            calendar.setdefault(member.due >> _SHIFT, []).append(member)


def _claim(ordered: Sequence[tuple[str, int]], seed: int) -> Generator[None, None, array[int]]:
    """Let members claim slots in turn until none is free; return the owner of each slot."""
    # A round lasts as long as the heaviest member's interval, or up to half of it: a power of two, so that
    # a change of the heaviest weight seldom changes the rounds.
    unit = 1 << max(weight for _, weight in ordered).bit_length() << _SHIFT
    members: list[_Member] = []
    for index, (id_, weight) in enumerate(ordered):
        members.append(_Member(index, id_, unit // weight, seed))
        if index % _SLICE == 0:
            yield
    owners = array(_typecode(len(members)), bytes(SLOTS * array(_typecode(len(members))).itemsize))
    taken = bytearray(SLOTS)
    turns = _turns(members)
    for turn, member in enumerate(islice(turns, SLOTS - _ENDGAME)):
        place = member.walk(taken)
        taken[place] = 1
        owners[place] = member.index
        if turn % _SLICE == 0:
            yield
    free = [place for place in range(SLOTS) if not taken[place]]
    yield
    for member in islice(turns, _ENDGAME):
        place = member.leap(free)
        free.remove(place)
        owners[place] = member.index
        if len(free) % (_SLICE // 16) == 0:
            yield
    return owners


def _typecode(members: int) -> str:
    """Return the narrowest array type that holds an index of so many members."""
    return "B" if members <= 1 << 8 else "H" if members <= 1 << 16 else "I"


def finish(steps: Generator[None, None, R]) -> R:
    """Run a sliced computation to its end and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: R = stop.value
            return result
