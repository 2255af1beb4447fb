"""Who holds which sockets."""

from __future__ import annotations

from dataplane.errors import PeerError, PeerGone
from tests.dataplane.supervisor.fleet import ADDRESS, fleet, settled


async def test_everything_new_is_lent_before_anything_is_taken_back():
    """So each socket has somebody at every moment."""
    async with fleet(2) as site:
        one, other = site.workers.serving.values()
        one.held, other.held = {(ADDRESS, 1)}, {(ADDRESS, 0)}
        site.noted.clear()
        await site.lending.spread()
        kinds = [kind for _, kind, _ in site.noted]
        assert kinds == ["listen", "listen", "drop", "drop"]
        assert site.held() == {0: [0], 1: [1]}


async def test_what_is_lent_already_is_left_alone():
    """A second time nothing is said."""
    async with fleet(3) as site:
        await site.lending.spread()
        assert not site.noted


async def test_an_address_that_is_gone_is_forgotten():
    """Workers close it by themselves when the change runs; nothing is dropped."""
    async with fleet(2) as site:
        for sock in site.sockets.sockets.pop(ADDRESS):
            sock.close()
        await site.lending.spread()
        assert site.held() == {0: [], 1: []}
        assert not site.noted


async def test_who_cannot_take_a_socket_is_ended_and_who_dies_is_not_waited_for():
    """The others get theirs."""
    async with fleet(3) as site:
        for worker in site.workers.serving.values():
            worker.held.clear()
        killed = site.workers.serving[0].process
        site.fails = {(0, "listen"): PeerError("no"), (1, "listen"): PeerGone()}
        await site.lending.spread()
        assert killed.returncode == -9
        assert site.held()[2] == [2]


async def test_workers_are_told_of_each_other():
    """Once, and again when it changes."""
    async with fleet(2, started=False) as site:
        await site.succession.start()
        await settled()
        assert site.workers.serving[0].siblings == [(1, site.workers.serving[1].row)]
        site.noted.clear()
        site.workers.serving.pop(1)
        await site.lending.spread()
        await settled()
        assert [(kind, body) for _, kind, body in site.noted if kind == "meet"] == [("meet", [])]


async def test_nothing_is_lent_at_the_end():
    """This process leaves."""
    async with fleet(2) as site:
        site.workers.serving[0].held.clear()
        site.lending.stopped = True
        await site.lending.spread()
        assert not site.noted
