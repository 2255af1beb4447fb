"""Which backend owns which clients: a weighted Maglev table over the configured set.

Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016), section 3.4. Each
backend has its own permutation of the slots. In turn, as often as its weight says, each claims the first
free slot of its permutation. When a backend goes, nearly all others find the same slots free as before.

Turns are at absolute times, (k + phase) / weight for the k-th, so whose turn comes first among any two
backends does not depend on a third one; with rounds counted by the heaviest weight it would.

Why 131,071 slots, twice the usual 65,537. Measured with N = 2, 3, 5, 10, 30, 100, 300, 600, 1,000 backends,
weights equal, in 1..10 and in 1..256, two seeds, three removals each, the heaviest among them; the worst case:

    slots     others that move     a weight changes: moved      error of a share          build
              when one goes        besides the difference       N <= 100     N = 1,000
    65,537    1.24 %               2.0 %                        1.4 %     4.3 %         40-70 ms
    131,071   0.92 %               1.2 %                        1.4 %     3.6 %         90-140 ms

The contract is 1 %. The worst cases have N >= 600; up to 100 it is 0.5 % and 0.4 %. Four times the slots
bring 0.7 % for 200-600 ms. (Shares of less than 20 slots are left out: they err by whole slots.) Rendezvous for
each slot moves nobody else, but shares err by 7 to 12 % at N = 100, and corrected for that it moves as many
as Maglev and costs more; a ring would need 2,700 points for each backend to come within 5 %.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Generator, Iterator, Sequence
from heapq import merge
from itertools import count
from typing import Final, TypeVar

from xxhash import xxh3_64_intdigest, xxh3_128, xxh3_128_intdigest

R = TypeVar("R")

SLOTS: Final = 131_071
"""A prime, so that every step from 1 to SLOTS - 1 visits all slots."""

CHOICES: Final = 128
"""Slots that a client looks at before giving up on the table: if 5 % are usable, one client in 700 does."""

_ENDGAME: Final = 256
"""With so few free slots left, computing where a permutation meets them is cheaper than walking it."""
_SLICE: Final = 512
"""Turns, or members, between two yields: about half a millisecond."""
_TURN_COST: Final = 16
"""What a turn costs besides its walk, in steps of a walk; a walk takes SLOTS / free steps on average."""
_LEAPS: Final = 16
"""Turns between two yields in the end game."""
_SHIFT: Final = 16
"""Binary places of a turn's time; whole units are rounds."""
_WORD: Final = (1 << 64) - 1


def client_key(ip: bytes, seed: str) -> int:
    """Return the 64-bit hash that stands for a client; without the service's seed one could aim at a backend.

    The address is in network order, 4 or 16 bytes; an IPv4 address mapped into IPv6 must come as 4.
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
        """Wrap what `build` has made: SLOTS indexes into the sorted members; empty if there are none."""
        self.ids = tuple([id_ for id_, _ in ordered])
        self.weights = tuple([weight for _, weight in ordered])
        self.slots = slots
        digest = xxh3_128("\n".join((seed, *self.ids)).encode())
        digest.update(slots)
        self.digest = digest.hexdigest()

    @classmethod
    def build(cls, members: Sequence[tuple[str, int]], seed: str) -> Generator[None, None, StickyTable]:
        """Build a table in slices of about half a millisecond; the generator returns it.

        Members are ids, each once, and weights >= 1, in any order; the seed, as for `client_key`, keys the
        permutations.
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


class _Permutations:
    """Each member's order of slots and times of turns, while a table is built.

    Arrays and no object for each member: letting go of 10,000 objects would take 3 ms.
    """

    __slots__ = ("_calendar", "_due", "_intervals", "_places", "_steps", "_unit")

    def __init__(self, heaviest: int) -> None:
        """Prepare for weights up to `heaviest`."""
        # A round is the heaviest member's interval or up to half of it: a power of two, so that a change
        # of the heaviest weight seldom changes the rounds.
        self._unit = 1 << heaviest.bit_length() << _SHIFT
        self._places, self._steps = array("q"), array("q")
        self._due, self._intervals = array("q"), array("q")
        self._calendar: dict[int, list[int]] = {}

    def add(self, id_: str, weight: int, seed: int) -> None:
        """Add the next member; the id alone makes its permutation and its phase."""
        bits = xxh3_128_intdigest(id_.encode(), seed)
        interval = self._unit // weight
        due = (bits & 0xFFFFFFFF) * interval >> 32
        self._calendar.setdefault(due >> _SHIFT, []).append(len(self._due))
        self._places.append((bits >> 96) % SLOTS)
        self._steps.append((bits >> 64 & 0xFFFFFFFF) % (SLOTS - 1) + 1)
        self._due.append(due)
        self._intervals.append(interval)

    def turns(self) -> Iterator[int]:
        """Yield whose turn it is, for ever: O(1) a turn, by the rounds of all next turns."""
        calendar, intervals, due = self._calendar, self._intervals, self._due
        for now in count():
            for member in calendar.pop(now, ()):
                yield member
                turn = due[member] = due[member] + intervals[member]
                calendar.setdefault(turn >> _SHIFT, []).append(member)

    def walk(self, member: int, taken: bytearray) -> int:
        """Return the member's first free slot."""
        place, step = self._places[member], self._steps[member]
        while taken[place]:
            place += step
            if place >= SLOTS:
                place -= SLOTS
        self._places[member] = place
        return place

    def leap(self, member: int, free: list[int]) -> int:
        """Return what `walk` would, from the few slots that are free."""
        # place + hops * step = slot (mod SLOTS), solved for hops; the fewest hops win.
        place, inverse = self._places[member], pow(self._steps[member], -1, SLOTS)
        return min(free, key=lambda slot: (slot - place) * inverse % SLOTS)


def _claim(ordered: Sequence[tuple[str, int]], seed: int) -> Generator[None, None, array[int]]:
    """Let members claim slots in turn until none is free; return the owner of each slot."""
    permutations = _Permutations(max(weight for _, weight in ordered))
    for index, (id_, weight) in enumerate(ordered):
        permutations.add(id_, weight, seed)
        if index % _SLICE == 0:
            yield
    # the narrowest type that holds an index of so many members
    code = "B" if len(ordered) <= 1 << 8 else "H" if len(ordered) <= 1 << 16 else "I"
    owners = array(code, bytes(SLOTS * array(code).itemsize))
    taken = bytearray(SLOTS)
    turns = permutations.turns()
    cost = 0
    for left, member in zip(range(SLOTS, _ENDGAME, -1), turns, strict=False):
        place = permutations.walk(member, taken)
        taken[place] = 1
        owners[place] = member
        cost += _TURN_COST + SLOTS // left
        if cost > _SLICE * _TURN_COST:
            cost = 0
            yield
    free = [match.start() for match in re.finditer(b"\0", taken)]
    yield
    for member in turns:
        place = permutations.leap(member, free)
        free.remove(place)
        owners[place] = member
        if not free:
            break
        if len(free) % _LEAPS == 0:
            yield
    return owners


def finish(steps: Generator[None, None, R]) -> R:
    """Run a sliced computation to its end and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: R = stop.value
            return result
