"""What a worker hears of a change, beside what it runs."""

from __future__ import annotations

import pytest

from dataplane.ipc.messages import load
from dataplane.supervisor.difference import Difference
from tests.dataplane.node.bench import benched

WHICH, BASE = (2, "two"), (1, "one")
A, B = {"id": "a", "address": "127.0.0.1:1"}, {"id": "b", "address": "127.0.0.1:1"}


@pytest.fixture
async def bench():
    """A node that runs two backends."""
    async with benched() as bench:
        await bench.put(A, B)
        yield bench


@pytest.mark.parametrize(
    ("backends", "same", "news"),
    [
        ([A, B], True, set()),
        ([B, A], True, set()),
        ([A, {**B, "weight": 3}], True, {"b"}),
        ([A], False, set()),
        ([A, B, {**B, "id": "c"}], False, {"c"}),
        ([A, {**B, "id": "c"}], False, {"c"}),
    ],
    ids=["nothing", "order", "weight", "gone", "new", "another name"],
)
async def test_what_is_new(bench, backends, same, news):
    """Columns stay with the names; verdicts are wanted for backends that are new or changed."""
    difference = Difference(await bench.draft(*backends), bench.node.running)
    assert difference.same_names() is same
    assert difference.news() == {"s": news}
    change = difference.change(WHICH, BASE, None)
    assert (change[:2], change.base, change.columns) == (WHICH, BASE, None)
    (packed,) = change.services
    assert {row[0] for piece in packed.slices for row in load(piece)} == news
    (everything,) = difference.whole(WHICH, []).services
    assert len([row for piece in everything.slices for row in load(piece)]) == len(backends)


async def test_other_options_are_news_of_all(bench):
    """Checks that are on from now on may have found something already."""
    draft = await bench.draft(A, B, retries=1)
    assert Difference(draft, bench.node.running).news() == {"s": {"a", "b"}}


async def test_a_service_that_was_not_there(bench):
    """All of it is new."""
    draft = await bench.draft(A, B)
    difference = Difference(draft, {})
    assert not difference.same_names()
    assert difference.news() == {"s": {"a", "b"}}
    (packed,) = difference.change(WHICH, BASE, []).services
    assert packed.options is not None


async def test_tables_travel_once(bench):
    """What runs already is not sent again."""
    await bench.put(A, B, mode="sticky")
    for weight, sent in [(1, []), (2, [0])]:
        draft = await bench.draft(A, {**B, "weight": weight}, mode="sticky")
        (packed,) = Difference(draft, bench.node.running).change(WHICH, BASE, None).services
        tables = load(packed.tables)
        assert list(tables) == sent
        assert all(table.digest == draft.services["s"].tables[tier].digest for tier, table in tables.items())
