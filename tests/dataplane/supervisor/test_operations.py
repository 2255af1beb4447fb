"""What operators do with workers."""

from __future__ import annotations

import pytest

from dataplane.errors import PeerGone, Refused
from tests.dataplane.supervisor.fleet import fleet, settled


async def test_all_are_replaced_one_by_one():
    """The next one is begun when the last one is there."""
    async with fleet(2) as site:
        former = list(site.workers.serving.values())
        answer = await site.operations.restart()
        assert answer == {"workers": 2, "pids": [one.pid for one in site.workers.serving.values()]}
        assert all(one.leaving for one in former)
        assert site.told == [(None, "restart"), (0, "worker_ready"), (1, "worker_ready"), (None, "restarted")]


async def test_a_restart_that_fails_leaves_the_others():
    """Who was not replaced yet serves on."""
    async with fleet(2) as site:
        former = site.workers.serving[1]
        site.fails[1, "welcome"] = PeerGone()
        with pytest.raises(Refused, match="the new worker died while starting") as refused:
            await site.operations.restart()
        assert (refused.value.status, refused.value.code) == (503, "restart_failed")
        assert site.workers.serving[1] is former
        assert not former.leaving


async def test_more_and_fewer():
    """More get sockets of their own; of fewer, those who go leave theirs to the others."""
    async with fleet(1) as site:
        await site.operations.resize(3)
        assert site.held() == {0: [0], 1: [1], 2: [2]}
        leaving = site.workers.serving[2]
        await site.operations.resize(1)
        await settled()
        assert site.held() == {0: [0, 1, 2]}
        assert leaving.leaving
        assert site.told.count((None, "resized")) == 2


async def test_as_many_as_came_up():
    """If one does not, there are those before it, and somebody accepts from all sockets."""
    async with fleet(1) as site:
        site.fails[2, "start"] = OSError("no memory")
        with pytest.raises(Refused, match="no memory"):
            await site.operations.resize(4)
        assert site.workers.count == 2
        assert sorted(number for held in site.held().values() for number in held) == [0, 1, 2, 3]


async def test_sockets_that_cannot_be_had():
    """Nothing has changed."""
    async with fleet(1) as site:
        site.sockets.refusal = Refused(503, "bind_failed", "no")
        with pytest.raises(Refused, match="no"):
            await site.operations.resize(2)
        assert (site.workers.count, len(site.all)) == (1, 1)


@pytest.mark.parametrize("count", [0, -1, 5])
async def test_not_any_number(count):
    """Rows of the counters are given out for more than there are workers now, but not for any number."""
    async with fleet(1) as site:
        with pytest.raises(Refused, match="from 1 to 4"):
            await site.operations.resize(count)


async def test_a_process_that_leaves_changes_nothing():
    """It says who does."""
    async with fleet(1) as site:
        site.refusal = Refused(503, "handed_over", "another process")
        for call in (site.operations.restart(), site.operations.resize(2)):
            with pytest.raises(Refused, match="another process"):
                await call
        assert not site.told
