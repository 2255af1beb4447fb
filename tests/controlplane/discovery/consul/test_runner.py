"""Who shares a watch, and what happens to watches when the wishes change; nobody is asked."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.core.guard import GuardPolicy
from controlplane.discovery.consul.pool import Pool
from controlplane.discovery.consul.query import Query, Selection
from controlplane.discovery.consul.runner import SharedWatches
from controlplane.discovery.consul.settings import ConsulSettings
from tests.support.discovery import FAST, RUNTIME
from tests.support.fakeconsul import FakeConsul

AGENT = ConsulSettings(port=1)


def pool(*datacenters, service="web"):
    """Return a pool of one service."""
    selection = Selection(Query(service=service), datacenters or ("",))
    return Pool(selection, GuardPolicy(), lambda *_: False, RUNTIME)


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
    assert set(noted) == {one, two}


async def test_what_runs_is_what_is_wanted(watches):
    """Others end, those of whom somebody new waits begin anew, and with another agent all do."""
    one, two, db = pool(), pool(), pool(service="db")
    running = asyncio.create_task(watches.run())

    async def tasks(*names):
        async with asyncio.timeout(10):
            while watches._anew or watches._tasks.keys() != {*names}:  # noqa: ASYNC110 - no event says so
                await asyncio.sleep(0)
        return dict(watches._tasks)

    web, other = one.selection.query, db.selection.query
    watches.want(AGENT, [one, db])
    before = await tasks(web, other, "")
    watches.want(AGENT, [one, two, db])
    after = await tasks(web, other, "")
    assert after[web] is not before[web]
    assert after[other] is before[other]
    assert after[""] is before[""]
    watches.want(ConsulSettings(port=2), [one])
    last = await tasks(web, "")
    assert last[web] is not after[web]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert all(task.done() for task in last.values())
