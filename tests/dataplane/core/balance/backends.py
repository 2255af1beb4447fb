"""Backends as balancers see them, and what tests of all modes share."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import strategies as st

from dataplane.core.balance.base import Balancer
from dataplane.core.selection import BALANCERS
from dataplane.core.spec import Mode


@dataclass(eq=False)
class Backend:
    """The least that a target is."""

    id: str
    active: int = 0

    def __repr__(self) -> str:
        return self.id


KEYS = st.integers(0, 2**64 - 1)
WEIGHTS = st.lists(st.integers(1, 256), min_size=1, max_size=12)
SMALL_WEIGHTS = st.lists(st.integers(1, 9), min_size=1, max_size=9)


def members(*weights: int) -> list[tuple[Backend, int]]:
    """Return backends a, b, c... with these weights."""
    return [
        (Backend(f"{chr(ord('a') + place % 26)}{place // 26 or ''}"), w) for place, w in enumerate(weights)
    ]


def build(mode: Mode, of: list[tuple[Backend, int]], previous=None, table=None, seed: int = 1) -> Balancer:
    """Build a balancer with a seeded source of randomness."""
    return BALANCERS[mode](of, random.Random(seed).random, previous, table)


def picks(balancer: Balancer, count: int) -> list[str]:
    """Pick so often, each for a new connection, and return the ids."""
    return [balancer.pick(0, ()).id for _ in range(count)]


def tries(balancer: Balancer, key: int = 0) -> list[str]:
    """Pick for one connection until nobody is left, and return the ids."""
    tried: tuple[Backend, ...] = ()
    while (target := balancer.pick(key, tried)) is not None:
        tried = (*tried, target)
        assert len(tried) <= 1000, "it does not end"
    return [target.id for target in tried]
