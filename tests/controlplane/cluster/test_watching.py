"""The watch of all nodes: what Consul said last holds, whatever happens to it."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from aiohttp import web

from controlplane.cluster.reading import nodes_prefix
from controlplane.cluster.watching import NodesWatch
from controlplane.core.node_record import NodeRecord
from controlplane.core.nodes import Presence, seconds_of
from controlplane.discovery.consul.client import connected
from controlplane.discovery.consul.settings import with_address
from tests.support.discovery import FAST, RUNTIME, eventually
from tests.support.fakeconsul import FakeConsul

AT = "2020-01-02T03:04:05.000Z"
NOW = "2999-01-01T00:00:00.000Z"


@pytest.fixture
async def consul():
    """A Consul with nothing in it."""
    async with FakeConsul() as fake:
        yield fake


async def put(consul, name, *, session="s", **more):
    """Have a node's record in Consul."""
    key = f"{nodes_prefix('edge')}{name}"
    consul.index += 1
    consul.keys[key] = (NodeRecord(**{"node": name, "at": NOW, **more}).encode(), consul.index)
    consul.locks.pop(key, None)
    if session:
        consul.locks[key] = session
    await consul.wake(index=consul.index)


@contextlib.asynccontextmanager
async def watched(consul, wanted=dict):
    """Watch the nodes; yields the watch, and the pictures that came."""
    told = []
    watch = NodesWatch("edge", wanted, lambda: told.append(watch.picture), pace=FAST, runtime=RUNTIME)
    async with connected(with_address(consul.address)) as client:
        task = asyncio.create_task(watch.run(client))
        try:
            yield watch, told
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def presences(watch):
    """Return who is how."""
    return {} if watch.picture is None else {each.name: each.presence for each in watch.picture.nodes}


async def test_it_sees_who_comes_and_goes(consul):
    """By one query that waits for a change."""
    async with watched(consul) as (watch, _):
        await eventually(lambda: watch.picture is not None, "an empty picture")
        assert presences(watch) == {}
        await put(consul, "a")
        await eventually(lambda: presences(watch) == {"a": Presence.LIVE}, "a node")
        await put(consul, "a", session="")
        await eventually(lambda: presences(watch) == {"a": Presence.GONE}, "its end")
        asked = [each for each in consul.asked if each.path.startswith("/v1/kv/")]
        assert all(each.blocking for each in asked[1:])
        assert {each.path for each in asked} == {"/v1/kv/livelb/edge/nodes/"}


async def test_when_somebody_was_seen_to_go_is_when_it_is_gone(consul):
    """The record that stays may be older: it is written every half a minute only."""
    old = RUNTIME.rfc3339(RUNTIME.clock() - 25.0)
    before = RUNTIME.wall()
    async with watched(consul) as (watch, _):
        await put(consul, "a", at=old)
        await eventually(lambda: presences(watch) == {"a": Presence.LIVE}, "a node")
        await put(consul, "a", at=old, session="")
        await eventually(lambda: presences(watch) == {"a": Presence.GONE}, "its end")
        assert seconds_of(watch.picture.named("a").since) >= before - 0.001
        await put(consul, "b")
        await eventually(lambda: "b" in presences(watch), "more news")
        assert seconds_of(watch.picture.named("a").since) >= before - 0.001


async def test_what_was_said_last_holds(consul):
    """While Consul errs, the picture stays; it is told why, and then all goes on."""
    async with watched(consul) as (watch, told):
        await put(consul, "a")
        await eventually(lambda: presences(watch) == {"a": Presence.LIVE}, "a node")
        last = watch.picture.nodes

        async def away(_request):
            return web.Response(status=500, text="No cluster leader")

        consul.fault = away
        await consul.wake()
        await eventually(lambda: watch.error is not None, "an error")
        assert watch.picture.nodes == told[-1].nodes == last
        consul.fault = None
        watch.returned.set()
        await put(consul, "b")
        await eventually(lambda: "b" in presences(watch), "the next picture")
        assert watch.error is None


async def test_what_is_no_record_hides_nobody(consul):
    """It is shown among the others."""
    consul.keys["livelb/edge/nodes/bad"] = (b"\x00", 3)
    async with watched(consul) as (watch, _):
        await put(consul, "a")
        await eventually(lambda: presences(watch) == {"a": Presence.LIVE, "bad": Presence.UNREADABLE}, "both")


async def test_the_key_says_who_is_behind(consul):
    """As far as this node knows what is in it."""
    async with watched(consul, lambda: {"lb/edge": "2" * 64}) as (watch, _):
        await put(consul, "a", key="lb/edge", content="1" * 64, converged=True)
        await eventually(lambda: watch.picture and watch.picture.nodes, "a node")
        assert watch.picture.named("a").behind == f"has lb.yaml {'1' * 12}, not {'2' * 12}"


async def test_keys_of_long_ago_are_deleted(consul):
    """By check-and-set, and nobody else's: live nodes, and what cannot be read, stay."""
    consul.keys["livelb/edge/nodes/bad"] = (b"\x00", 3)
    await put(consul, "a", session="", at=AT)
    await put(consul, "b", at=AT)
    index = consul.keys["livelb/edge/nodes/a"][1]
    async with watched(consul) as (watch, _):
        await eventually(lambda: "livelb/edge/nodes/a" not in consul.keys, "the old key to go")
        assert set(consul.keys) == {"livelb/edge/nodes/b", "livelb/edge/nodes/bad"}
        (step,) = [json.loads(each.body) for each in consul.asked if each.path == "/v1/txn"]
        assert step == [{"KV": {"Verb": "delete-cas", "Key": "livelb/edge/nodes/a", "Index": index}}]
        await eventually(lambda: set(presences(watch)) == {"b", "bad"}, "the others")
