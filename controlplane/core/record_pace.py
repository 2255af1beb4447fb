"""How much nodes tell of themselves, and how often, by how many they are.

Theory of operation:

1. Whoever watches the records of N nodes is woken by each that is written, and then reads all of them. So N nodes together read
   N x N records, as often as one of them reads: it is this square that fills the servers' links, long before what is
   written does (`tools/model_cluster.py` has the figures: with none of the rules below, 20 nodes are too many).
2. Room: what records say of single services shares a fixed room from 16 nodes on. The busiest services are told one by one,
   the others as a sum.
3. Pause: a node that has read waits before it reads again. What happens in between is in the next answer: nothing is missed,
   and the picture of 100 nodes is at most 5 s old.
4. Numbers, which change all the time, are written less often, so that no more than four records a second come from all nodes
   together. What is not a number is written at once, however many they are.
"""

from __future__ import annotations

from typing import Final

_FULL_ROOM: Final = 16
"""Nodes with a full room for each."""
_NUMBERS_S: Final = 5.0
_WRITES_PER_S: Final = 4.0
_PAUSE_S: Final = 0.05
"""For each node."""


def room_share(nodes: int) -> float:
    """Return the share of the room in a record that one of so many nodes has, above 0 and up to 1."""
    return min(1.0, _FULL_ROOM / max(1, nodes))


def numbers_every_s(nodes: int) -> float:
    """Return how often one of so many nodes writes its numbers, in seconds, while they change."""
    return max(_NUMBERS_S, nodes / _WRITES_PER_S)


def read_pause_s(nodes: int) -> float:
    """Return how long one of so many nodes waits from one reading of all records to the next, in seconds."""
    return _PAUSE_S * max(1, nodes)
