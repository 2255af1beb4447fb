"""Writing for all nodes: never over somebody else's change, nor beside a canary; and waiting until all have it."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from controlplane.cluster.lock import Holder
from controlplane.cluster.looking import InterruptedHere, Keys, Looker
from controlplane.cluster.writing import write, write_and_wait
from controlplane.core.arrival import Standing
from controlplane.core.canary_record import CanaryRecord, digest_of_content
from controlplane.core.node_record import NodeRecord
from controlplane.discovery.consul.client import connected
from controlplane.discovery.consul.key import MAX_VALUE_BYTES
from controlplane.discovery.consul.settings import ConsulError, SettingsError, with_address
from controlplane.errors import HeldBackError
from controlplane.operations.options import now_text
from tests.support.discovery import eventually
from tests.support.fakeconsul import FakeConsul

KEYS = Keys("lb/web")


@pytest.fixture
async def consul():
    """A Consul with nothing in it."""
    async with FakeConsul() as fake:
        yield fake


@pytest.fixture
async def client(consul):
    """Its client."""
    async with connected(with_address(consul.address)) as made:
        yield made


async def test_the_same_content_is_not_written(client):
    """What is there already is no change."""
    assert await write(client, KEYS, b"one", 5.0)
    assert not await write(client, KEYS, b"one", 5.0)


@pytest.mark.parametrize("force", [False, True])
async def test_a_write_meanwhile_is_not_overwritten(consul, client, force):
    """Who comes second is told, unless he insists."""
    await write(client, KEYS, b"one", 5.0)
    real = FakeConsul._kv

    async def interfered(request, path):
        answer = await real(consul, request, path)
        if request.method == "GET" and consul.keys[path][0] == b"one":
            consul.index += 1
            consul.keys[path] = (b"somebody else's", consul.index)
        return answer

    consul._kv = interfered
    if force:
        assert await write(client, KEYS, b"two", 5.0, force=True)
    else:
        with pytest.raises(HeldBackError, match="nothing was changed: somebody else"):
            await write(client, KEYS, b"two", 5.0)
    assert consul.keys["lb/web"][0] == (b"two" if force else b"somebody else's")


async def test_nobody_writes_beside_somebody_who_is_at_it(consul, client):
    """He is named; who insists, writes."""
    await write(client, KEYS, b"one", 5.0)
    consul.keys["lb/web.lock"] = (Holder("ann", "hill", 7, "2027", "a canary").encode(), 9)
    consul.locks["lb/web.lock"] = "s1"
    with pytest.raises(
        HeldBackError, match=r"is being changed: a canary by ann on hill \(pid 7\) since 2027;"
    ):
        await write(client, KEYS, b"two", 5.0)
    assert await write(client, KEYS, b"two", 5.0, force=True)


@pytest.mark.parametrize(("lasts_s", "refused"), [(600.0, True), (0.0, False)])
async def test_nobody_writes_beside_a_canary_that_nobody_attends_to(consul, client, lasts_s, refused):
    """How to take it back is said; one whose time is up is none any more."""
    record = CanaryRecord(
        "c1", "ann", now_text(), lasts_s, ("n1",), 1.0, "a" * 64, digest_of_content(b"x"), "x"
    )
    consul.keys |= {"lb/web": (b"one", 3), "lb/web.canary": (record.encode(), 4)}
    if refused:
        with pytest.raises(HeldBackError, match="lb-control apply --to consul-kv:lb/web --take-back"):
            await write(client, KEYS, b"two", 5.0)
    else:
        assert await write(client, KEYS, b"two", 5.0)


async def test_no_consul():
    """Nobody there is an error that says whom it asked."""
    async with connected(with_address("http://127.0.0.1:1")) as client:
        with pytest.raises(ConsulError, match=r"127\.0\.0\.1:1"):
            await write(client, KEYS, b"one", 5.0)


async def test_what_cannot_be_written(client):
    """A path that is none, and more than Consul takes."""
    with pytest.raises(SettingsError):
        await write(client, Keys("a//b"), b"one", 5.0)
    with pytest.raises(ConsulError, match="takes 524288"):
        await write(client, KEYS, b"x" * (MAX_VALUE_BYTES + 1), 5.0)


def node(consul, name, content, session="s", **more):
    """Have a node tell of itself."""
    record = NodeRecord(name, now_text(), key="lb/web", content=content, converged=True, **more)
    path = f"livelb/edge/nodes/{name}"
    consul.index += 1
    consul.keys[path] = (record.encode(), consul.index)
    if session is None:
        consul.locks.pop(path, None)
    else:
        consul.locks[path] = session


async def test_waits_for_every_live_node(consul, client, monkeypatch):
    """Until one after the other has it; one that dies meanwhile is named, one that refuses too."""
    monkeypatch.setattr("controlplane.cluster.looking.POLL_S", 0.01)
    said = []
    looker = Looker(client, "edge", KEYS, said.append, asyncio.Event())
    new = digest_of_content(b"new")
    for name in ("n1", "n2", "n3"):
        node(consul, name, "b" * 64)
    node(consul, "n4", "b" * 64, session=None)
    waiting = asyncio.create_task(write_and_wait(looker, b"new", 30.0, force=False))
    await eventually(lambda: "consul-kv:lb/web: written" in said, "the key")
    node(consul, "n1", new)
    await eventually(lambda: "n1: runs it" in said, "the first")
    node(consul, "n2", "b" * 64, error="lb/web:3: no")
    node(consul, "n3", "b" * 64, session=None)
    done = await waiting
    assert {each.node: each.standing for each in done.nodes} == {
        "n1": Standing.RUNS,
        "n2": Standing.REFUSED,
        "n3": Standing.GONE,
    }
    assert "n2: refused: lb/web:3: no" in said


async def test_waits_no_longer_than_it_may(consul, client):
    """Who is behind is named with what it has."""
    looker = Looker(client, "edge", KEYS, lambda _: None, asyncio.Event())
    node(consul, "n1", "b" * 64)
    done = await write_and_wait(looker, b"new", 2.0, force=False)
    assert [each.standing for each in done.nodes] == [Standing.BEHIND]


async def test_waits_for_nobody_once_somebody_else_has_written(consul, client, monkeypatch):
    """No node will have what is there no more."""
    monkeypatch.setattr("controlplane.cluster.looking.POLL_S", 0.01)
    said = []
    looker = Looker(client, "edge", KEYS, said.append, asyncio.Event())
    node(consul, "n1", "b" * 64)
    waiting = asyncio.create_task(write_and_wait(looker, b"new", 30.0, force=False))
    await eventually(lambda: "consul-kv:lb/web: written" in said, "the key")
    consul.keys["lb/web"] = (b"newer", consul.index + 1)
    assert [each.standing for each in (await waiting).nodes] == [Standing.BEHIND]
    assert "somebody else has written consul-kv:lb/web meanwhile" in said


async def test_consul_that_is_away_for_a_while_is_waited_for(consul, client, monkeypatch):
    """It is said once, and when it is over; and who interrupts is not held up."""
    monkeypatch.setattr("controlplane.cluster.looking.POLL_S", 0.01)
    said, stop = [], asyncio.Event()
    looker = Looker(client, "edge", KEYS, said.append, stop)
    node(consul, "n1", "b" * 64)
    waiting = asyncio.create_task(write_and_wait(looker, b"new", 30.0, force=False))
    await eventually(lambda: "consul-kv:lb/web: written" in said, "the key")

    async def fault(_request):
        return web.Response(status=500, text="No cluster leader")

    consul.fault = fault
    await eventually(lambda: len(said) == 2, "the trouble")
    asked = len(consul.asked)
    await eventually(lambda: len(consul.asked) > asked + 3, "more questions")
    consul.fault = None
    await eventually(lambda: said[-1] == "Consul answers again", "the end of it")
    assert len(said) == 3, said
    stop.set()
    with pytest.raises(InterruptedHere):
        await waiting
