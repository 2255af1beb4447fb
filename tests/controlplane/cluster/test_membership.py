"""A node as one of a cluster: it tells, it sees, it moves and leaves; without Consul, the last picture holds."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest

from controlplane.cluster import publishing
from controlplane.cluster.membership import Membership, Place
from controlplane.core.node_record import NodeRecord
from controlplane.core.nodes import Presence
from controlplane.discovery.consul.settings import with_address
from tests.support.discovery import FAST, RUNTIME, eventually
from tests.support.fakeconsul import FakeConsul

PULSE = replace(FAST, pulse_s=0.01, pulse_timeout_s=0.5)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Have no test wait for what a session has time for."""
    for name in ("LOOK_S", "LEAST_S", "HELD_S", "RENEW_S"):
        monkeypatch.setattr(publishing, name, 0.01)


@pytest.fixture
async def consul():
    """A Consul with nothing in it."""
    async with FakeConsul() as fake:
        yield fake


def place(consul, node="n1", cluster="edge"):
    """Return where a node belongs."""
    return Place(cluster, node, None, with_address(consul.address))


async def tell(where):
    """Return what there is to tell of a node there."""
    return NodeRecord(
        node=where.node, at="2026-01-01T00:00:00.000Z", ready=True, content="1" * 64, converged=True
    )


@contextlib.asynccontextmanager
async def member(where, pace=FAST, on_change=lambda: None):
    """Be a member until the end of the block."""
    one = Membership(tell, pace=pace, runtime=RUNTIME)
    one.on_change = [on_change]
    one.follow(where)
    task = asyncio.create_task(one.run())
    try:
        yield one
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def seen(one):
    """Return who is how, as a member sees it."""
    picture = one.picture()
    return {} if picture is None else {each.name: each.presence for each in picture.nodes}


async def test_without_a_cluster_it_is_nowhere(consul):
    """Nothing is asked of Consul, nothing is shown."""
    async with member(None) as one:
        await asyncio.sleep(0)
        assert (one.picture(), one.live_nodes(), one.report(), one.status()) == (None, None, None, [])
        assert consul.asked == []
        one.follow(place(consul))
        await eventually(lambda: seen(one) == {"n1": Presence.LIVE}, "itself")


async def test_nodes_see_each_other(consul):
    """From any of them, and who leaves has left."""
    async with member(place(consul)) as one:
        async with member(place(consul, "n2")) as two:
            both = {"n1": Presence.LIVE, "n2": Presence.LIVE}
            await eventually(lambda: seen(one) == seen(two) == both, "both")
            assert one.live_nodes() == two.live_nodes() == 2
            report = one.report()
            assert (report["cluster"], report["node"], report["live"], report["converged"]) == (
                "edge",
                "n1",
                2,
                True,
            )
            assert (report["known"], report["error"]) == (True, None)
            (row,) = one.status()
            assert (row["name"], row["state"], row["last_error"]) == ("consul-cluster", "ok", None)
        await eventually(lambda: seen(one) == {"n1": Presence.LIVE, "n2": Presence.LEFT}, "its end")
        assert one.live_nodes() == 1


async def test_it_moves(consul):
    """Another cluster or name in lb.yaml counts at once; where it was it has left."""
    async with member(place(consul)) as one:
        await eventually(lambda: seen(one), "itself")
        one.follow(place(consul, "n9", "core"))
        await eventually(lambda: seen(one) == {"n9": Presence.LIVE}, "itself elsewhere")
        assert one.picture().cluster == "core"
        assert NodeRecord.parse(consul.keys["livelb/edge/nodes/n1"][0]).left is not None
        one.follow(None)
        await eventually(lambda: one.report() is None and not consul.sessions, "its end")
        assert one.status() == []


async def test_a_taken_name_is_an_error(consul):
    """The row says whose fault it is; the others are seen all the same."""
    async with member(place(consul)) as one:
        await eventually(lambda: seen(one), "itself")
        async with member(place(consul)) as two:
            await eventually(lambda: two.status() and two.status()[0]["state"] == "error", "the conflict")
            assert "the name n1 is taken" in two.status()[0]["last_error"]
            assert "the name n1 is taken" in two.report()["error"]
            await eventually(lambda: seen(two) == {"n1": Presence.LIVE}, "the picture")
            assert one.status()[0]["state"] == "ok"
        assert seen(one) == {"n1": Presence.LIVE}


async def test_without_consul_the_last_picture_holds():
    """It ages, and says why; when Consul is back, so is the node, with a session of its own again."""
    consul = FakeConsul()
    async with contextlib.AsyncExitStack() as stack:
        async with consul:
            changes = []
            one = await stack.enter_async_context(
                member(place(consul), PULSE, lambda: changes.append(one.report()))
            )
            await eventually(lambda: seen(one) == {"n1": Presence.LIVE}, "itself")
        await eventually(lambda: one.status()[0]["state"] == "stale", "the silence")
        assert (seen(one), one.live_nodes()) == ({"n1": Presence.LIVE}, 1)
        report = one.report()
        assert "unreachable" in report["error"]
        age_s = report["age_s"]
        await eventually(lambda: one.report()["age_s"] > age_s, "the picture to age")
        await eventually(lambda: changes[-1]["error"], "whoever follows it to be told")
        consul.sessions.clear()
        consul.locks.clear()
        async with consul:
            await eventually(lambda: one.status()[0]["state"] == "ok", "Consul again")
            await eventually(lambda: consul.locks, "its record again")
            assert one.report()["error"] is None


async def test_before_consul_answers_nothing_is_known():
    """Not even how many there are."""
    nobody = with_address("http://127.0.0.1:1")
    async with member(Place("edge", "n1", None, nobody)) as one:
        await eventually(lambda: one.status() and one.status()[0]["state"] == "error", "the error")
        assert one.live_nodes() is None
        report = one.report()
        assert (report["known"], report["nodes"], report["live"]) == (False, [], 0)
