"""A node's own record: told at once when it is news, under a session that is renewed, and held by nobody else."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest
from aiohttp import web

from controlplane.cluster import publishing
from controlplane.cluster.publishing import Publisher
from controlplane.core.node_record import NodeRecord
from controlplane.discovery.consul.client import connected
from controlplane.discovery.consul.settings import with_address
from tests.support.discovery import FAST, RUNTIME, eventually
from tests.support.fakeconsul import FakeConsul

KEY = "livelb/edge/nodes/n1"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Have no test wait for what a session has time for; what is written only since it is time is not written at all."""
    for name in ("LOOK_S", "LEAST_S", "HELD_S", "RENEW_S"):
        monkeypatch.setattr(publishing, name, 0.01)
    monkeypatch.setattr(publishing, "MOST_S", 1000.0)
    monkeypatch.setattr(publishing, "numbers_every_s", lambda _: 1000.0)


@pytest.fixture
async def consul():
    """A Consul with nothing in it."""
    async with FakeConsul() as fake:
        yield fake


class Node:
    """What there is to tell of a node, and the one that tells it."""

    def __init__(self, name="n1"):
        self.record = NodeRecord(node=name, at="2026-01-01T00:00:00.000Z", ready=True)
        self.publisher = Publisher("edge", name, self.tell, pace=FAST, runtime=RUNTIME)

    async def tell(self):
        """Return it."""
        return self.record

    def change(self, **fields):
        """Have news."""
        self.record = replace(self.record, **fields)
        self.publisher.news.set()


@contextlib.asynccontextmanager
async def published(consul, node=None):
    """Publish a node until the end of the block."""
    node = node or Node()
    async with connected(with_address(consul.address)) as client:
        task = asyncio.create_task(node.publisher.run(client))
        try:
            yield node
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def said(consul):
    """Return what is in the key; None: nothing."""
    return NodeRecord.parse(consul.keys[KEY][0]) if KEY in consul.keys else None


def writes(consul):
    """Return how often the record was written."""
    return sum(each.path == f"/v1/kv/{KEY}" for each in consul.asked)


async def test_it_is_written_under_a_session(consul):
    """With the time at which it was."""
    async with published(consul) as node:
        await eventually(lambda: said(consul), "the record")
        assert replace(said(consul), at=node.record.at) == node.record
        assert said(consul).at > node.record.at
        assert consul.sessions[consul.locks[KEY]]["Name"] == "livelb n1"
        await eventually(lambda: sum("renew" in each.path for each in consul.asked) > 2, "renewals")
        assert node.publisher.error is None


async def test_news_are_told_at_once_and_numbers_when_it_is_time(consul, monkeypatch):
    """A change of readiness does not wait; one of the counters does."""
    async with published(consul) as node:
        await eventually(lambda: said(consul), "the record")
        node.change(ready=False, reason="draining")
        await eventually(lambda: said(consul).reason == "draining", "the news")
        written = writes(consul)
        node.change(active=5)
        await eventually(lambda: sum("renew" in each.path for each in consul.asked) > 5, "some looks")
        assert (writes(consul), said(consul).active) == (written, 0)
        monkeypatch.setattr(publishing, "numbers_every_s", lambda _: 0.01)
        await eventually(lambda: said(consul).active == 5, "the numbers")
        written = writes(consul)
        monkeypatch.setattr(publishing, "MOST_S", 0.01)
        await eventually(
            lambda: writes(consul) > written + 1, "the same again, so that its time says that all is well"
        )


async def test_a_lost_session_is_made_anew(consul):
    """The node is back with what it had to say, without anybody's doing."""
    async with published(consul) as node:
        await eventually(lambda: KEY in consul.locks, "the record")
        lost = consul.locks[KEY]
        await consul.expire(lost)
        await eventually(lambda: consul.locks.get(KEY, lost) != lost, "another session")
        assert said(consul).left is None
        assert node.publisher.error is None


async def test_a_name_that_another_has_is_not_taken(consul):
    """It says so until the other one has gone, and then it has the name."""
    async with contextlib.AsyncExitStack() as stack:
        async with published(consul) as first:
            await eventually(lambda: KEY in consul.locks, "the record")
            theirs = consul.locks[KEY]
            second = Node()
            second.record = replace(second.record, address="http://10.0.0.2:9100")
            await stack.enter_async_context(published(consul, second))
            await eventually(lambda: second.publisher.error, "the conflict")
            assert "the name n1 is taken" in str(second.publisher.error)
            assert (consul.locks[KEY], said(consul).address) == (theirs, None)
            assert first.publisher.error is None
        await eventually(lambda: second.publisher.error is None, "the name")
        assert (said(consul).address, said(consul).left) == ("http://10.0.0.2:9100", None)


async def test_it_leaves_in_good_order(consul):
    """The last word says so, and nobody has the key."""
    async with published(consul):
        await eventually(lambda: KEY in consul.locks, "the record")
    assert said(consul).left is not None
    assert said(consul).at == said(consul).left
    assert (consul.locks, consul.sessions) == ({}, {})


async def test_without_consul_it_says_why_and_tries_again(consul):
    """Nothing is lost but that others see it; it ends without it as well."""
    async with published(consul) as node:
        await eventually(lambda: said(consul), "the record")

        async def away(_request):
            return web.Response(status=500, text="No cluster leader")

        consul.fault = away
        await eventually(lambda: node.publisher.error, "the error")
        assert node.publisher.error.kind == "failed"
        node.change(reason="meanwhile")
        consul.fault = None
        await eventually(lambda: said(consul).reason == "meanwhile", "the record again")
        assert node.publisher.error is None
        consul.fault = away
    assert said(consul).left is None
