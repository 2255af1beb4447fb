"""Who shares a watch, and what happens to watches when the wishes change; nobody is asked."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.core.guard import GuardPolicy
from controlplane.discovery.consul.pool import Pool
from controlplane.discovery.consul.query import Query, Selection
from controlplane.discovery.consul.runner import SharedWatches, WatchRunner
from controlplane.discovery.consul.settings import ConsulSettings
from tests.support.discovery import FAST, RUNTIME
from tests.support.fakeconsul import FakeConsul

AGENT = ConsulSettings(port=1)


def pool(*datacenters, service="web"):
    """Return a pool of one service."""
    selection = Selection(Query(service=service), datacenters or ("",))
    return Pool(selection, GuardPolicy(), lambda _: False, RUNTIME)


@pytest.fixture
def watches():
    """Watches that nobody runs."""
    return SharedWatches(lambda _: None, pace=FAST, runtime=RUNTIME)


async def test_equal_questions_are_asked_once(watches):
    """Pools that ask the same have one watch, and those of one datacenter one pulse."""
    one, two, other, far = pool(), pool(), pool(service="db"), pool("dc1", "dc2")
    watches.want(AGENT, [one, two, other, far])
    assert one.watches == two.watches
    assert one.watches != other.watches
    assert one.pulses == two.pulses == other.pulses
    assert [watch.query.datacenter for watch in far.watches] == ["dc1", "dc2"]
    assert len({*one.pulses, *far.pulses}) == 3


async def test_what_is_still_wanted_goes_on(watches):
    """A watch lives for as long as any pool needs it."""
    one, two = pool(), pool()
    watches.want(AGENT, [one])
    (watch,) = one.watches
    watches.want(AGENT, [two])
    assert two.watches == (watch,)
    watches.want(AGENT, [])
    watches.want(AGENT, [two])
    assert two.watches != (watch,)


async def test_news_are_noted_for_all_who_share(watches):
    """Each answer is for every pool, and so is the word that there is one."""
    noted = []
    watches = SharedWatches(noted.extend, pace=FAST, runtime=RUNTIME)
    one, two = pool(), pool("", "dc2")
    async with FakeConsul() as consul, asyncio.timeout(10):
        settings = ConsulSettings(port=int(consul.address.rpartition(":")[2]))
        watches.want(settings, [one, two])
        running = asyncio.create_task(watches.run())
        while not (one.tracks[0].heard and two.tracks[0].heard and two.tracks[1].heard):  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(0.001)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert set(noted) == {one.selection.key(), two.selection.key()}


class Asking:
    """Puts questions, and says how often it has begun."""

    def __init__(self):
        self.began = 0
        self.running = asyncio.Event()

    async def run(self, _client):
        """Ask until cancelled."""
        self.began += 1
        self.running.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.running.clear()


async def test_what_runs_is_what_is_wanted():
    """New ones begin, others end, those of whom somebody new waits begin anew, and with another agent all do."""
    runner, one, two = WatchRunner(), Asking(), Asking()
    running = asyncio.create_task(runner.run())
    async with asyncio.timeout(10):
        runner.want(AGENT, [("one", one), ("two", two)], ())
        await one.running.wait()
        await two.running.wait()
        runner.want(AGENT, [("one", one), ("two", two)], {"two"})
        while two.began < 2:  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(0)
        assert one.began == 1
        runner.want(ConsulSettings(port=2), [("one", one)], ())
        while one.began < 2 or two.running.is_set():  # noqa: ASYNC110 - the same
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not one.running.is_set()
