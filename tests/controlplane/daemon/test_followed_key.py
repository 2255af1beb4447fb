"""A key with its canary as a home: what counts is handed on, its time ends it, and a restart neither forgets nor prolongs it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest
from aiohttp import web

from controlplane.core.canary_record import CanaryRecord, End, digest_of_content
from controlplane.daemon.followed_key import FollowedKey
from controlplane.discovery.consul.key import KeySource
from controlplane.discovery.consul.settings import with_address
from controlplane.discovery.consul.watch import Runtime
from controlplane.errors import StoreError
from controlplane.operations.options import now_text
from controlplane.store import Store
from tests.support.discovery import FAST, RUNTIME, eventually
from tests.support.fakeconsul import FakeConsul

OLD, NEW = b"version: 1 # old", b"version: 1 # new"


def record(*, lasts_s=3600.0, content=NEW, key="c1", nodes=("n1",)):
    """Return a canary that begins now."""
    return CanaryRecord(
        id=key,
        by="ann on hill",
        since=now_text(),
        lasts_s=lasts_s,
        nodes=nodes,
        observe_s=60.0,
        base=digest_of_content(OLD),
        content_hash=digest_of_content(content),
        content=content.decode(),
    )


class Clocks:
    """Both clocks of a node, which a test moves on."""

    def __init__(self):
        self.now = 0.0
        self._wall = Runtime().wall()

    def runtime(self, began_at=0.0):
        """Return the time as a process sees it that began then."""
        return replace(RUNTIME, clock=lambda: self.now - began_at, wall=lambda: self._wall + self.now)


class Node:
    """One node that follows the key `lb`."""

    def __init__(self, consul, directory, name="n1"):
        self.consul = consul
        self.store = Store(directory)
        self.name = name
        self.taken, self.events, self.log = [], [], []
        self.home = None

    @contextlib.asynccontextmanager
    async def runs(self, runtime=RUNTIME):
        """Follow it in the block."""

        async def take(raw, forced, note="", /):
            self.taken.append((raw, note))

        source = KeySource("lb", with_address(self.consul.address), pace=FAST, runtime=runtime)
        self.home = FollowedKey(
            source,
            lambda: self.name,
            self.store,
            on_event=self.events.append,
            log=self.log.append,
            runtime=runtime,
        )
        task = asyncio.create_task(self.home.run(take, take))
        try:
            yield self
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    def takes(self, *contents):
        """Wait until these have been taken, in this order."""
        return eventually(
            lambda: [raw for raw, _ in self.taken] == list(contents), lambda: f"{contents}: {self.taken}"
        )


@pytest.fixture
async def consul():
    """A Consul whose key has the old content."""
    async with FakeConsul() as fake:
        fake.keys["lb"] = (OLD, 5)
        yield fake


@pytest.fixture
def node(consul, tmp_path):
    """Node n1."""
    return Node(consul, tmp_path)


async def write(consul, content=None, canary=None):
    """Write the key, the canary, or both at once."""
    consul.index += 1
    for path, raw in (("lb", content), ("lb.canary", canary and canary.encode())):
        if raw is not None:
            consul.keys[path] = (raw, consul.index)
    await consul.wake(index=consul.index)


def ended(canary, how, why):
    """Return its end."""
    return replace(canary, content=None, ended=End(how, why, now_text()))


async def test_who_is_named_takes_it_and_says_so(node, consul):
    """In what is taken, the status, the log, and an event."""
    async with node.runs():
        await node.takes(OLD)
        await write(consul, canary=record())
        await node.takes(OLD, NEW)
        assert node.taken[1][1] == "canary c1 of ann on hill"
        status = node.home.status()
        assert (status["canary"]["id"], status["canary"]["by"]) == ("c1", "ann on hill")
        assert status["note"].startswith("canary c1 of ann on hill runs here since ")
        assert [each["state"] for each in node.events] == ["running"]
        assert "canary c1 of ann on hill runs here, until" in node.log[0]


async def test_promotion_is_no_change_where_it_runs(node, consul):
    """The canary's node is handed nothing; another one is handed the content with the evidence."""
    other = Node(consul, node.store._root / "other", "n2")
    canary = record()
    async with node.runs(), other.runs():
        await node.takes(OLD)
        await other.takes(OLD)
        await write(consul, canary=canary)
        await node.takes(OLD, NEW)
        await write(consul, NEW, ended(canary, "promoted", "web: as good"))
        await other.takes(OLD, NEW)
        await eventually(lambda: len(node.events) == 2, "its end")
        assert other.taken[1][1] == "canary c1 of ann on hill promoted: web: as good"
        assert node.events[1] == {
            "type": "canary",
            "state": "promoted",
            "canary": "c1",
            "by": "ann on hill",
            "why": "web: as good",
            "until": None,
        }
        await write(consul, b"next")
        await node.takes(OLD, NEW, b"next")


async def test_taken_back(node, consul):
    """The key's content again, with the reason."""
    canary = record()
    async with node.runs():
        await write(consul, canary=canary)
        await eventually(lambda: node.taken and node.taken[-1][0] == NEW, "the canary")
        await write(consul, canary=ended(canary, "taken_back", "web: failed 9%"))
        await eventually(lambda: node.taken[-1][0] == OLD, "the old content")
        assert node.taken[-1][1] == "canary c1 of ann on hill taken_back: web: failed 9%"
        assert node.store.canary() is None
        assert "canary" not in node.home.status()


async def test_its_time_ends_it_while_consul_is_away(node, consul):
    """What was read of the key counts, though nobody can be asked."""
    clocks = Clocks()
    async with node.runs(clocks.runtime()):
        await write(consul, canary=record(lasts_s=0.3))
        await eventually(lambda: node.taken and node.taken[-1][0] == NEW, "the canary")

        async def fault(_request):
            return web.Response(status=500, text="No cluster leader")

        consul.fault = fault
        clocks.now += 0.4
        await eventually(lambda: node.taken[-1][0] == OLD, "the old content")
        assert node.events[-1]["state"] == "expired"
        assert "expired" in node.log[-1]


async def test_a_restart_without_consul_ends_it_in_its_time(node, consul):
    """What it is to return to is on disk."""
    clocks = Clocks()
    async with node.runs(clocks.runtime()):
        await write(consul, canary=record(lasts_s=1000.0))
        await eventually(lambda: node.taken and node.taken[-1][0] == NEW, "the canary")

    async def fault(_request):
        return web.Response(status=500, text="No cluster leader")

    consul.fault = fault
    clocks.now += 400.0
    async with node.runs(clocks.runtime(began_at=400.0)):
        await eventually(lambda: node.home.canary, "the memory")
        assert node.home._rule.due == pytest.approx(600.0, abs=0.01)  # `since` has whole milliseconds
    clocks.now += 700.0
    async with node.runs(clocks.runtime(began_at=1100.0)):
        await eventually(lambda: node.taken[-1][0] == OLD, "the old content")


async def test_over_stays_over(node, consul):
    """Also for the next process, though the record is still there."""
    clocks = Clocks()
    async with node.runs(clocks.runtime()):
        await write(consul, canary=record(lasts_s=0.1))
        await eventually(lambda: node.taken and node.taken[-1][0] == NEW, "the canary")
        clocks.now += 1.0
        await eventually(lambda: node.taken[-1][0] == OLD, "the old content")
    count = len(node.taken)
    async with node.runs(clocks.runtime(began_at=1.0)):
        await node.takes(*[raw for raw, _ in node.taken[:count]], OLD)


async def test_a_node_that_learns_its_name_takes_its_canary_at_once(node, consul):
    """A first start: the name stands in the key's content."""
    node.name = None
    await write(consul, canary=record())
    taken = node.taken

    class Learns(list):
        def append(self, item):
            node.name = "n1"
            super().append(item)

    node.taken = Learns(taken)
    async with node.runs():
        await node.takes(OLD, NEW)


async def test_a_record_that_cannot_be_read_is_told(node, consul):
    """And names nobody."""
    consul.keys["lb.canary"] = (b'{"version": 9}', 6)
    async with node.runs():
        await node.takes(OLD)
        assert "consul-kv:lb.canary is no canary that this version understands" in node.home.status()["note"]


async def test_what_is_on_disk_and_cannot_be_used_is_told(node, consul):
    """It is as if nothing was known."""
    node.store.keep_canary({"id": 7})
    async with node.runs():
        await node.takes(OLD)
        assert "cannot be used" in node.log[0]


async def test_a_disk_that_takes_nothing_is_told(node, consul, monkeypatch):
    """The canary runs all the same."""

    def full(_memory):
        raise StoreError("no space left")

    monkeypatch.setattr(node.store, "keep_canary", full)
    async with node.runs():
        await write(consul, canary=record())
        await eventually(lambda: node.taken and node.taken[-1][0] == NEW, "the canary")
        assert any("no space left" in line for line in node.log)
