"""Who is there, and what all of them are asked or told."""

from __future__ import annotations

import pytest

from dataplane.errors import PeerError, PeerGone
from dataplane.supervisor.workers import CheckRelay
from tests.dataplane.node.bench import benched
from tests.dataplane.supervisor.fleet import fleet


async def test_who_dies_is_left_out_of_the_answers():
    """An answer of the others is one; an error of one is everybody's."""
    async with fleet(3) as site:
        site.fails[1, "report"] = PeerGone()
        assert [worker.index for worker, _, _ in await site.workers.ask_all("report")] == [0, 2]
        site.fails[2, "report"] = PeerError("no")
        with pytest.raises(PeerError):
            await site.workers.ask_all("report")


async def test_those_that_drain_are_asked_too():
    """What they count is part of the sum; what is changed is not for them."""
    async with fleet(1) as site:
        await site.succession.bring_up(0)
        assert len(await site.workers.ask_all("report", former=True)) == 2
        assert len(await site.workers.ask_all("report")) == 1
        site.noted.clear()
        site.workers.tell_all("arm")
        site.workers.reopen()
        assert [kind for _, kind, _ in site.noted] == ["arm", "reopen", "reopen"]


async def test_the_last_one():
    """Waiting ends with it, and not before."""
    async with fleet(2) as site:
        site.lending.stopped = True
        site.workers.kill_all()
        await site.workers.wait_empty()
        assert [kind for _, kind in site.told] == ["ended", "ended"]


async def test_workers_learn_what_checks_have_changed():
    """And of a check that passed, if a worker has ejected the backend; of nothing else."""
    async with benched() as bench:
        await bench.put({"id": "a", "address": "127.0.0.1:1"})
        told = []
        relay = CheckRelay(told.append)
        backend = bench.service.backends["a"]
        relay.judged("s", backend, changed=False, passed=True)
        relay.judged("s", backend, changed=True, passed=False)
        relay.ejected.add((7, "s", "a"))
        relay.judged("s", backend, changed=False, passed=True)
        relay.judged("s", backend, changed=False, passed=False)
        assert told == [[("s", "a", "unknown", "not checked yet", True, passed)] for passed in (False, True)]
