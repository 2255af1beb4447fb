"""How workers come and go, with workers that are no processes."""

from __future__ import annotations

import pytest

from dataplane.errors import PeerError, PeerGone, Refused
from dataplane.supervisor import succession
from dataplane.supervisor.succession import Pace
from tests.dataplane.supervisor.fleet import fleet, settled


@pytest.fixture(autouse=True)
def no_delay(monkeypatch):
    """Start successors at once."""
    monkeypatch.setattr(succession, "FIRST_DELAY_S", 0.0)


async def test_a_worker_is_brought_up_in_order():
    """It knows what runs before it gets a socket, and only then does it count as being there."""
    async with fleet(1, started=False) as site:
        await site.succession.start()
        assert site.kinds(0)[:2] == [(0, "welcome"), (0, "listen")]
        assert site.briefed == [site.workers.serving[0]]
        assert site.held() == {0: [0]}
        assert site.told == [(0, "worker_ready")]


@pytest.mark.parametrize("kind", ["start", "welcome", "listen"])
async def test_a_start_that_fails_is_told(kind):
    """Whatever goes wrong with one worker is the error of the start."""
    async with fleet(2, started=False) as site:
        site.fails[1, kind] = PeerError("no")
        with pytest.raises(PeerError):
            await site.succession.start()
        assert list(site.workers.serving) == [0]


async def test_a_predecessor_drains_when_its_successor_is_there():
    """Until then it accepts, and what it held is the successor's."""
    async with fleet(2) as site:
        former = site.workers.serving[0]
        successor = await site.succession.bring_up(0)
        await settled()
        assert site.workers.serving[0] is successor
        assert former.leaving
        asked = site.kinds(0)
        assert asked.index((0, "listen")) < asked.index((0, "drain"))
        assert site.held() == {0: [0], 1: [1]}


async def test_who_dies_is_replaced_and_its_queue_served():
    """Siblings get its sockets at once, and its successor gets them back."""
    async with fleet(2) as site:
        former = site.workers.serving[0]
        former.process.kill()
        await settled()
        assert site.told[:2] == [(0, "ended"), (0, "worker_died")]
        assert [one for one in site.kinds(1) if one[1] in {"listen", "drop"}] == [(1, "listen"), (1, "drop")]
        assert site.workers.serving[0] is not former
        assert site.held() == {0: [0], 1: [1]}


async def test_a_successor_that_fails_is_tried_again():
    """Each failure is told; nothing is given up."""
    async with fleet(1) as site:
        site.fails[0, "welcome"] = PeerGone()
        site.workers.serving[0].process.kill()
        await settled()
        assert site.told.count((0, "worker_failed")) > 1
        del site.fails[0, "welcome"]
        await settled()
        assert site.told[-1] == (0, "worker_ready")


async def test_who_is_told_to_end_stays_until_a_successor_is_there():
    """And stays if there can be none."""
    async with fleet(1) as site:
        former = site.workers.serving[0]
        site.fails[0, "welcome"] = PeerGone()
        former.notice("event", ("worker_terminated", {}))
        await settled()
        assert (0, "worker_failed") in site.told
        assert site.workers.serving[0] is former
        assert not former.leaving
        del site.fails[0, "welcome"]
        former.notice("event", ("worker_terminated", {}))
        await settled()
        assert former.leaving


@pytest.mark.parametrize(("last", "closed"), [(True, "for good"), (False, "ours")])
async def test_the_end(last, closed):
    """All stop handing clients over, then drain; nobody is replaced, and no socket is held here."""
    async with fleet(2) as site:
        await site.succession.let_all_go(last=last)
        await settled()
        for index in (0, 1):
            assert site.kinds(index) == [(index, "meet"), (index, "drain")]
        assert {body for _, kind, body in site.noted if kind == "drain"} == {last}
        assert (site.sockets.closed, site.workers.serving) == (closed, {})
        for worker in site.all:
            worker.process.kill(0)
        await site.workers.wait_empty()
        assert [kind for _, kind in site.told] == ["ended", "ended"]
        with pytest.raises(PeerGone):
            await site.succession.bring_up(0)


async def test_rows_of_the_counters_come_back():
    """As many workers may come and go as like to; too many former ones at once are refused."""
    async with fleet(1) as site:
        site.fails[0, "start"] = OSError("no process")
        for _ in range(20):
            with pytest.raises(OSError):
                await site.succession.bring_up(0)
        del site.fails[0, "start"]
        for _ in range(site.board.rows - 1):
            await site.succession.bring_up(0)
        with pytest.raises(PeerError, match="too many former workers"):
            await site.succession.bring_up(0)


def test_pace(monkeypatch):
    """At once, unless workers die young: then later each time, up to a limit."""
    monkeypatch.setattr(succession, "FIRST_DELAY_S", 0.1)
    pace = Pace()
    assert pace.delay_s(60.0) == 0.0
    assert [pace.delay_s(0.1) for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert pace.delay_s(60.0) == 0.0
    assert pace.delay_s(0.1) == 0.1


async def test_all_are_replaced_one_by_one():
    """The next one is begun when the last one is there."""
    async with fleet(2) as site:
        former = list(site.workers.serving.values())
        answer = await site.succession.restart()
        assert answer == {"workers": 2, "pids": [one.pid for one in site.workers.serving.values()]}
        assert all(one.leaving for one in former)
        assert site.told == [(None, "restart"), (0, "worker_ready"), (1, "worker_ready"), (None, "restarted")]


async def test_a_restart_that_fails_leaves_the_others():
    """Who was not replaced yet serves on."""
    async with fleet(2) as site:
        former = site.workers.serving[1]
        site.fails[1, "welcome"] = PeerGone()
        with pytest.raises(Refused, match="the new worker died while starting") as refused:
            await site.succession.restart()
        assert (refused.value.status, refused.value.code) == (503, "restart_failed")
        assert site.workers.serving[1] is former
        assert not former.leaving


async def test_more_and_fewer():
    """More get sockets of their own; of fewer, those who go leave theirs to the others."""
    async with fleet(1) as site:
        await site.succession.resize(3)
        assert site.held() == {0: [0], 1: [1], 2: [2]}
        leaving = site.workers.serving[2]
        await site.succession.resize(1)
        await settled()
        assert site.held() == {0: [0, 1, 2]}
        assert leaving.leaving
        assert site.told.count((None, "resized")) == 2


async def test_as_many_as_came_up():
    """If one does not, there are those before it, and somebody accepts from all sockets."""
    async with fleet(1) as site:
        site.fails[2, "start"] = OSError("no memory")
        with pytest.raises(Refused, match="no memory"):
            await site.succession.resize(4)
        assert site.workers.count == 2
        assert sorted(number for held in site.held().values() for number in held) == [0, 1, 2, 3]


async def test_sockets_that_cannot_be_had():
    """Nothing has changed."""
    async with fleet(1) as site:
        site.sockets.refusal = Refused(503, "bind_failed", "no")
        with pytest.raises(Refused, match="no"):
            await site.succession.resize(2)
        assert (site.workers.count, len(site.all)) == (1, 1)


@pytest.mark.parametrize("count", [0, -1, 5])
async def test_not_any_number(count):
    """Rows of the counters are given out for more than there are workers now, but not for any number."""
    async with fleet(1) as site:
        with pytest.raises(Refused, match="from 1 to 4"):
            await site.succession.resize(count)
