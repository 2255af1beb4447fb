"""Tables of mode `sticky`: which are built, which are used again, and how many clients a change would move."""

from __future__ import annotations

from dataplane.core.spec import BackendSpec, Mode, OperatorState
from dataplane.node.sticky_tables import build_tables, moved_share, tables_hash


def specs(*rows: tuple[str, int, int]) -> list[BackendSpec]:
    """Return backends of (id, weight, tier)."""
    return [BackendSpec(id_, f"{id_}:1", weight, tier, OperatorState.ENABLED) for id_, weight, tier in rows]


BOTH = specs(("a", 1, 0), ("b", 1, 0), ("spare", 1, 1))


async def test_other_modes_have_none():
    """And so no hash."""
    tables = await build_tables(Mode.RR, "", BOTH, {}, "")
    assert tables == {}
    assert tables_hash(tables) is None


async def test_each_tier_has_one():
    """A backend without a weight is in none."""
    tables = await build_tables(Mode.STICKY, "", [*BOTH, *specs(("idle", 0, 0))], {}, "")
    assert {tier: set(table.ids) for tier, table in tables.items()} == {0: {"a", "b"}, 1: {"spare"}}


async def test_what_has_not_changed_is_used_again():
    """A tier with the same members and weights keeps its table; another seed builds all anew."""
    first = await build_tables(Mode.STICKY, "x", BOTH, {}, "")
    heavier = specs(("a", 2, 0), ("b", 1, 0), ("spare", 1, 1))
    second = await build_tables(Mode.STICKY, "x", heavier, first, "x")
    assert second[1] is first[1]
    assert second[0] is not first[0]
    assert tables_hash(second) != tables_hash(first)
    other = await build_tables(Mode.STICKY, "y", BOTH, first, "x")
    assert other[1] is not first[1]


async def test_the_hash_is_that_of_what_clients_get():
    """Whoever builds the same has the same, in whatever order it was configured."""
    one = await build_tables(Mode.STICKY, "x", BOTH, {}, "")
    other = await build_tables(Mode.STICKY, "x", BOTH[::-1], {}, "")
    assert tables_hash(one) == tables_hash(other)


async def test_the_share_that_moves_is_that_of_the_tier_that_serves():
    """Nobody by a change elsewhere, all when another tier takes over, a part when one of several goes."""
    tables = await build_tables(Mode.STICKY, "x", BOTH, {}, "")
    fewer = await build_tables(Mode.STICKY, "x", specs(("a", 1, 0), ("spare", 1, 1)), tables, "x")
    everybody = {"a", "b", "spare"}
    assert await moved_share(tables, tables, everybody, everybody) == 0
    assert await moved_share(tables, tables, everybody, {"spare"}) == 1
    assert 0.3 < await moved_share(tables, fewer, everybody, {"a", "spare"}) < 0.7
