"""Three real servers and a client agent: what each failure of theirs answers, and that none takes anything away."""

from __future__ import annotations

import asyncio
import signal

import pytest

from tests.support.consul import Cluster
from tests.support.discovery import FAST, Discovering, eventually

pytestmark = [pytest.mark.needs("consul"), pytest.mark.timeout(120)]

ATTENTIVE = type(FAST)(wait_s=1.0, slack_s=2.0, rate=200.0)


@pytest.fixture
def cluster():
    """A cluster with a leader."""
    with Cluster() as made:
        yield made


async def register(agent, *names):
    """Register instances of `web` whose checks pass until they are told otherwise."""
    for name in names:
        await agent.register(name, 1000 + ord(name[0]))


async def on_client_and_server(cluster):
    """Three instances on the client agent, one on a server that is not the leader; returns that server."""
    follower = next(agent for agent in cluster.servers if agent is not cluster.leader())
    await register(cluster.client, "a", "b", "c")
    await register(follower, "d")
    return follower


ALL_ON_CLIENT = ("client/a", "client/b", "client/c", "client/d")


async def test_leader_killed_and_quorum_lost(cluster):
    """The death of the leader is not noticed; without a quorum what is known stays, and all goes on with a new one."""
    await register(cluster.client, "a", "b", "c", "d")
    async with Discovering(cluster.client.address, {"web": "web"}, pace=ATTENTIVE) as found:
        await found.shows(*ALL_ON_CLIENT)
        changes = found.changes
        first = cluster.leader()
        await asyncio.to_thread(first.kill)
        await asyncio.to_thread(cluster.wait_for_leader)
        await cluster.client.register("e", 1101)
        await found.shows(*ALL_ON_CLIENT, "client/e")
        assert found.changes == changes + 1, found.history
        second = cluster.leader()
        await asyncio.to_thread(second.kill)
        survivor = next(agent for agent in cluster.servers if agent.poll() is None)
        await eventually(lambda: not survivor.has_leader(), "the loss of the quorum")
        polls = found.status()["polls"]
        await eventually(lambda: found.status()["polls"] > polls + 3, "more questions")
        assert found.ids() == [*ALL_ON_CLIENT, "client/e"]
        for agent in (first, second):
            await asyncio.to_thread(agent.start)
        await asyncio.to_thread(cluster.wait_for_leader)
        await cluster.client.register("f", 1102)
        await found.shows(*ALL_ON_CLIENT, "client/e", "client/f")
        assert found.changes == changes + 2, found.history


async def test_servers_wiped(cluster):
    """Servers that were rebuilt empty answer with nothing, as leaders, and are not believed; what is new is taken."""
    await register(cluster.client, "a", "b", "c", "d")
    watched = cluster.servers[0]
    async with Discovering(watched.address, {"web": "web"}, {"hold": "0s"}, pace=ATTENTIVE) as found:
        await found.shows(*ALL_ON_CLIENT)
        changes = found.changes
        cluster.client.send_signal(signal.SIGSTOP)  # else it registers again before anybody has looked
        for agent in cluster.servers:
            await asyncio.to_thread(agent.kill)
            agent.wipe()
        for agent in cluster.servers:
            await asyncio.to_thread(agent.start)
        row = await found.is_in("held")
        assert row["held"]["why"] == "empty"
        assert row["headers"]["leader"] == "true"
        assert found.changes == changes
        await register(watched, "e")
        await found.shows(*ALL_ON_CLIENT, "server0/e")
        await eventually(lambda: found.status()["held"]["why"] == "shrink", "one to be seen")
        assert found.status()["held"]["ends_in_s"] > 200  # agents register again on a timer of minutes
        cluster.client.send_signal(signal.SIGCONT)


async def test_agent_of_most_instances_killed_and_back(cluster):
    """An agent that dies and returns with its checks critical takes nothing away while its instances are seen again."""
    watched = await on_client_and_server(cluster)
    four = ("client/a", "client/b", "client/c", f"{watched.name}/d")
    async with Discovering(watched.address, {"web": "web"}, pace=ATTENTIVE) as found:
        await found.shows(*four)
        changes = found.changes
        await asyncio.to_thread(cluster.client.kill)
        await eventually(lambda: found.status()["counts"]["lost"] == 3, "the silence of the agent")
        assert found.ids() == sorted(four)
        await asyncio.to_thread(cluster.client.start)
        await eventually(lambda: found.status()["counts"]["lost"] == 0, "the agent's return")
        assert found.ids() == sorted(four)
        assert found.changes == changes
        for name in "abc":  # the last one alone is believed to be critical, if it is for long
            await cluster.client.check(name, "passing")
        await eventually(lambda: found.status()["counts"]["passing"] == 4, "all to pass")
        await found.is_in("ok")
        await found.shows(*four)


async def test_node_of_most_instances_taken_out(cluster):
    """A node that leaves takes its instances out of the catalogue at once: they are held until they are back."""
    watched = await on_client_and_server(cluster)
    four = ("client/a", "client/b", "client/c", f"{watched.name}/d")
    async with Discovering(watched.address, {"web": "web"}, pace=ATTENTIVE) as found:
        await found.shows(*four)
        changes = found.changes
        cluster.client.send_signal(signal.SIGSTOP)  # else it registers again at once
        await watched.call("PUT", "/v1/catalog/deregister", {"Node": "client"})
        row = await found.is_in("held")
        assert row["held"]["missing"] == ["client/a", "client/b", "client/c"]
        await asyncio.to_thread(cluster.client.kill)
        await asyncio.to_thread(cluster.client.start)
        for name in "abc":
            await cluster.client.check(name, "passing")
        await found.is_in("ok")
        assert found.ids() == sorted(four)
        assert found.changes == changes


async def test_a_server_frozen(cluster):
    """A server that stops in its tracks while it is asked takes nothing away."""
    follower = next(agent for agent in cluster.servers if agent is not cluster.leader())
    await register(cluster.client, "a", "b", "c", "d")
    async with Discovering(follower.address, {"web": "web"}, pace=ATTENTIVE) as found:
        await found.shows(*ALL_ON_CLIENT)
        follower.send_signal(signal.SIGSTOP)
        try:
            await found.is_in("stale")
        finally:
            follower.send_signal(signal.SIGCONT)
        await cluster.client.register("e", 1101)
        await found.shows(*ALL_ON_CLIENT, "client/e")
