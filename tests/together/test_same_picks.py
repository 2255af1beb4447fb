"""Every node picks the same backend for a client: as it was computed once, and whatever each node sees of health."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.balance.sticky_table import StickyTable
from dataplane.node.sticky_tables import tables_hash
from tests.support.vectors import VECTORS, picked, selection_of, tables_of

CLIENTS = [f"10.0.{n // 250}.{n % 250}" for n in range(300)]


@cache
def tables(name: str) -> dict[int, StickyTable]:
    """Build the tables of a case once."""
    return tables_of(next(case for case in VECTORS if case["name"] == name))


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
def test_picks_are_what_they_were(case: dict[str, Any]) -> None:
    """By an earlier version, on another machine; so is the hash by which nodes know that they agree."""
    found = tables(case["name"])
    assert tables_hash(found) == case["table_hash"]
    for each in case["picks"]:
        got = picked(selection_of(case, found, each["down"]), case["seed"], each["clients"])
        assert got == each["clients"], f"with {each['down']} down"


def test_the_vectors_say_something() -> None:
    """There are several sets, tiers, weights, and backends that are down; and every backend of a small set has clients."""
    assert len(VECTORS) >= 6
    assert {each["tier"] for case in VECTORS for each in case["backends"]} == {0, 1}
    assert any(not each["weight"] for case in VECTORS for each in case["backends"])
    assert all(len(each["clients"]) >= 30 for case in VECTORS for each in case["picks"])
    three = VECTORS[0]["picks"][0]["clients"]
    assert set(three.values()) == {"a", "b", "c"}


SMALL = [case for case in VECTORS if 2 < len(case["backends"]) < 10]


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_nodes_that_see_health_otherwise_disagree_only_where_it_differs(data: st.DataObject) -> None:
    """A client that two nodes send to two backends is one of a backend that is down for one of them, and for one only.

    So is it with a backend that an operator has drained on one node only.
    """
    case = data.draw(st.sampled_from(SMALL))
    found = tables(case["name"])
    ids = [each["id"] for each in case["backends"]]
    views = [
        (data.draw(st.sets(st.sampled_from(ids))), data.draw(st.sets(st.sampled_from(ids), max_size=1)))
        for _ in range(2)
    ]
    unusable = [down | drained for down, drained in views]
    one, other = (picked(selection_of(case, found, *view), case["seed"], CLIENTS) for view in views)
    differ = unusable[0] ^ unusable[1]
    for client, backend in one.items():
        if backend != other[client]:
            assert {backend, other[client]} & differ, client
    if not differ:
        assert one == other


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case["name"])
def test_the_order_of_the_file_does_not_matter(case: dict[str, Any]) -> None:
    """Discovery may list the same backends otherwise on each node."""
    turned = {**case, "backends": case["backends"][::-1]}
    found = tables_of(turned)
    assert tables_hash(found) == case["table_hash"]
    first = case["picks"][0]
    assert picked(selection_of(turned, found, ()), case["seed"], first["clients"]) == first["clients"]
