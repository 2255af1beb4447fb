"""How many idle connections a pool should hold: what demand asks for, within every limit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dataplane.core.spec import PoolSpec
from dataplane.net.goal import Goal, PoolShare
from tests.dataplane.net.rig import spec


def pool(**options: Any) -> PoolSpec:
    """Return a pool's settings."""
    return spec(pool={"mode": "preconnect", "idle_timeout": "0s", "max_age": "0s", **options}).pool


def goal(share: PoolShare | None = None, limit: int = 0, active: int = 0, **options: Any) -> Goal:
    """Make a goal, for a backend with so many clients."""
    backend = SimpleNamespace(usable=True, address=object(), active=active)
    return Goal(SimpleNamespace(now=100.0), backend, pool(**options), limit, share or PoolShare())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limit", "active", "wanted"), [(0, 50, 4), (10, 5, 4), (10, 7, 3), (10, 10, 0), (10, 12, 0)]
)
def test_min_idle_within_the_limit(limit: int, active: int, wanted: int) -> None:
    """As many as `min_idle`, but clients come first where there is a limit."""
    one = goal(limit=limit, active=active, min_idle=4)
    one.aim()
    assert one.count == wanted
    assert one.size() == (max(0, min(one.spec.max_idle, limit - active)) if limit else one.spec.max_idle)


def test_a_backend_without_use_needs_none() -> None:
    """Not usable, without an address, or with the pool switched off."""
    for change in ({"usable": False}, {"address": None}):
        one = goal(min_idle=4)
        vars(one.backend).update(change)
        assert one.target() == 0
    assert goal(mode="off", min_idle=4).target() == 0


def test_demand_is_met_up_to_max_idle() -> None:
    """What clients of the last seconds ask for; under load a few may be missing before anything is dialled."""
    one = goal(max_idle=8)
    for number in range(50_000):
        one.demand.arrived(95.0 + number / 10_000)
    one.aim()
    assert one.count == 8
    assert 0 < one.slack <= 4


def test_a_share_is_the_last_word() -> None:
    """A process that may hold less, or nothing, wants as much, and aims at what it may."""
    one = goal(PoolShare(cap=2), min_idle=4)
    one.aim()
    assert (one.target(), one.count) == (4, 2)
    one.share.cap = 0
    one.aim()
    assert (one.count, one.slack) == (0, 0)


def test_part_of_min_idle() -> None:
    """`min_idle` is the node's: each process holds its part, and looks again when it restocks."""

    class Half(PoolShare):
        def part(self, least: int) -> int:
            return least // self.by

        by = 2

    share = Half()
    one = goal(share, min_idle=6)
    assert one.target() == 3
    share.by = 3
    one.take_part()
    assert one.target() == 2
