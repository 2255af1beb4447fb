"""What a change would do to the connections and clients that there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from dataplane.core.spec import OperatorState
from dataplane.node.impact import change_steps
from dataplane.node.slices import SLICE
from schemas.snapshot import Service, finish, parse_snapshot
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


A, B = {"id": "a", "address": "10.0.0.1:1"}, {"id": "b", "address": "10.0.0.2:1"}
WEB: dict[str, Any] = {"listen": "127.0.0.1:80", "backends": [A]}


def services(**given: Mapping[str, Any]) -> Mapping[str, Service]:
    """Return services of a snapshot."""
    return parse_snapshot({"generation": 1, "services": given}).services


def changes(old: Mapping[str, Service], new: Mapping[str, Service]) -> list[dict[str, Any]]:
    """Return the differences."""
    return [dict(each) for each in finish(change_steps(old, new))]


def changed(**options: Any) -> list[dict[str, Any]]:
    """Return what options change in a service, whose name is left out."""
    found = changes(services(web=WEB), services(web={**WEB, **options}))
    assert all(each.pop("service") == "web" for each in found)
    return found


def test_the_same_is_no_change() -> None:
    """However it is written."""
    spelled = {"listen": ["127.0.0.1:80"], "backends": [{**A, "weight": 1}], "mode": "rr"}
    assert changes(services(web=WEB), services(web=spelled)) == []


def test_a_service_comes_and_goes_with_all_its_members() -> None:
    """What goes is said before what comes."""
    old, new = services(old=WEB), services(new={**WEB, "backends": [B]})
    assert [(each["action"], each["kind"], each["service"]) for each in changes(old, new)] == [
        ("remove", "service", "old"),
        ("remove", "listener", "old"),
        ("remove", "backend", "old"),
        ("add", "service", "new"),
        ("add", "listener", "new"),
        ("add", "backend", "new"),
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"backends": [B]},
            [
                {"action": "remove", "kind": "backend", "id": "a"},
                {"action": "add", "kind": "backend", "id": "b"},
            ],
        ),
        (
            {"backends": [{**A, "weight": 3, "state": "drain"}]},
            [
                {
                    "action": "change",
                    "kind": "backend",
                    "id": "a",
                    "fields": {"weight": {"from": 1, "to": 3}, "state": {"from": "enabled", "to": "drain"}},
                }
            ],
        ),
        (
            {"listen": ["127.0.0.1:80", "127.0.0.1:81"]},
            [{"action": "add", "kind": "listener", "address": "127.0.0.1:81"}],
        ),
        (
            {"listen": {"address": "127.0.0.1:80", "freebind": True}},
            [
                {
                    "action": "change",
                    "kind": "listener",
                    "address": "127.0.0.1:80",
                    "fields": {"freebind": {"from": None, "to": True}},
                }
            ],
        ),
        (
            {"mode": "p2c", "pool": {"max_idle": 7}},
            [
                {
                    "action": "change",
                    "kind": "option",
                    "fields": {
                        "mode": {"from": "rr", "to": "p2c"},
                        "pool.max_idle": {"from": 256, "to": 7},
                    },
                }
            ],
        ),
    ],
)
def test_a_change_names_its_fields_before_and_after(
    options: dict[str, Any], expected: list[dict[str, Any]]
) -> None:
    """Options of options by their path; backends by their id, listeners by their address."""
    assert changed(**options) == expected


def test_an_address_that_stays_is_no_change_if_another_one_goes() -> None:
    """Each address of a service is judged alone."""
    old = services(web={**WEB, "listen": ["127.0.0.1:80", "127.0.0.1:81"]})
    assert changes(old, services(web=WEB)) == [
        {"action": "remove", "kind": "listener", "service": "web", "address": "127.0.0.1:81"}
    ]


@pytest.mark.parametrize("same", [True, False])
def test_many_backends_are_compared_in_slices(*, same: bool) -> None:
    """Equal ones count as well: they take as long. What is the same object takes nothing."""
    many = [{"id": f"b{number}", "address": f"10.0.0.1:{number}"} for number in range(1, 4 * SLICE + 1)]
    old = services(web={**WEB, "backends": many})
    weight = 1 if same else 2
    new = services(web={**WEB, "backends": [{**each, "weight": weight} for each in many]})
    assert sum(1 for _ in change_steps(old, new)) >= 4
    assert sum(1 for _ in change_steps(old, old)) == 0
