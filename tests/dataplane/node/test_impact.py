"""What a change would do to the connections and clients that there are."""

from __future__ import annotations

from typing import Any

import pytest

from dataplane.core.spec import OperatorState
from tests.dataplane.node.test_apply import Applying, body

PLAIN = {"a": {"address": "127.0.0.1:1"}, "b": {"address": "127.0.0.1:2"}}


@pytest.fixture
async def it():
    """An applier whose backends have three clients and two pooled connections each."""
    it = Applying()
    it.others.held = {("s", "a"): (3, 2), ("s", "b"): (3, 2)}
    yield it
    it.reactor.epoll.close()


def snapshot(generation: int, backends: dict[str, dict[str, Any]], **options: Any) -> dict[str, Any]:
    """Return a snapshot of one service with these backends."""
    made = body(generation, **options)
    made["services"]["s"]["backends"] = [{"id": id_, **one} for id_, one in backends.items()]
    return made


def ids(rows: list[dict[str, Any]]) -> list[str]:
    """Return which backends are concerned."""
    return [row["id"] for row in rows]


@pytest.mark.parametrize(
    ("after", "drain", "pool"),
    [
        ({}, [], []),
        ({"a": {"weight": 5}}, [], []),
        ({"a": {"weight": 0}}, [], ["a"]),
        ({"a": {"state": "drain"}}, ["a"], ["a"]),
        ({"a": None}, ["a"], ["a"]),
        ({"a": {"address": "127.0.0.1:7"}}, ["a"], ["a"]),
        ({"a": None, "new": {"address": "127.0.0.1:1"}}, [], ["a"]),
        ({"a": {"address": "127.0.0.1:2"}, "b": {"address": "127.0.0.1:1"}}, [], ["a", "b"]),
    ],
    ids=["nothing", "weight", "no weight", "drain", "gone", "moved", "renamed", "exchanged"],
)
async def test_connections_stay_with_their_address(it, after, drain, pool):
    """They drain if nobody enabled has it then; pooled ones are closed with what changes about their backend."""
    await it.applier.apply(snapshot(1, PLAIN))
    backends = {
        id_: {**PLAIN.get(id_, {}), **(after.get(id_) or {})}
        for id_ in [*PLAIN, *(after.keys() - PLAIN.keys())]
        if after.get(id_, {}) is not None
    }
    impact = (await it.applier.plan(snapshot(2, backends)))["impact"]
    assert (ids(impact["drain"]), ids(impact["pool"])) == (drain, pool)


async def test_one_that_drains_already_is_not_drained_again(it):
    """Its clients have their deadline."""
    await it.applier.apply(snapshot(1, PLAIN | {"a": {"address": "127.0.0.1:1", "state": "drain"}}))
    backend = it.node.running["s"].service.backends["a"]
    assert backend.spec.state is OperatorState.DRAIN
    planned = await it.applier.plan(
        snapshot(2, PLAIN | {"a": {"address": "127.0.0.1:1", "state": "disabled"}})
    )
    assert planned["impact"]["drain"] == []


async def test_another_pool_mode_closes_all_pooled_connections(it):
    """They were made for another."""
    await it.applier.apply(snapshot(1, PLAIN))
    planned = await it.applier.plan(snapshot(2, PLAIN, pool={"mode": "reuse"}))
    assert ids(planned["impact"]["pool"]) == ["a", "b"]
    assert planned["impact"]["drain"] == []


async def test_listeners_that_open_and_close(it):
    """One whose options change does neither."""
    await it.applier.apply(snapshot(1, PLAIN, listen=["127.0.0.1:9", "unix:/x"]))
    listen = ["127.0.0.1:8", {"unix": "/x", "mode": "0600"}]
    planned = await it.applier.plan(snapshot(2, PLAIN, listen=listen))
    assert planned["impact"]["listeners"] == [
        {"action": "close", "service": "s", "address": "127.0.0.1:9"},
        {"action": "bind", "service": "s", "address": "127.0.0.1:8"},
    ]


async def test_sticky_clients_that_would_move(it):
    """A share of them, where the service was and stays sticky; another seed moves all."""
    await it.applier.apply(snapshot(1, PLAIN, mode="sticky"))
    same = (await it.applier.plan(snapshot(2, PLAIN, mode="sticky")))["impact"]
    fewer = (await it.applier.plan(snapshot(2, {"a": PLAIN["a"]}, mode="sticky")))["impact"]
    seed = (await it.applier.plan(snapshot(2, PLAIN, mode="sticky", seed="x")))["impact"]
    other = (await it.applier.plan(snapshot(2, PLAIN)))["impact"]
    assert same["remap"] == {"s": "0%"}
    assert 30 < float(fewer["remap"]["s"].rstrip("%")) < 70
    assert seed["remap"] == {"s": "100%"}
    assert other["remap"] == {}
