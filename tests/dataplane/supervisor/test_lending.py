"""Who holds which sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Coroutine, Iterable
from typing import Any

import pytest

from dataplane.errors import PeerError, PeerGone
from dataplane.supervisor.lending import Inboxes
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


# -- inboxes ------------------------------------------------------------------------------------------


class Meeting:
    """Takes note of whom it meets."""

    def __init__(self, index: int, answer: Exception | None = None) -> None:
        self.index = index
        self.row = 10 + index
        self.siblings: list[tuple[int, int]] = []
        self.met: list[tuple[list[int], int]] = []
        self.killed = ""
        self._answer = answer

    async def ask(self, kind: str, rows: list[int], descriptors: Iterable[int]) -> None:
        """Note the rows, and how many descriptors came; say something into each inbox."""
        assert kind == "meet"
        if self._answer is not None:
            raise self._answer
        for each in descriptors:
            with socket.socket(fileno=os.dup(each)) as writer:
                writer.send(b"from %d" % self.index)
        self.met.append((rows, len(list(descriptors))))

    def kill(self, cause: str) -> None:
        """Note it."""
        self.killed = cause


async def introduced(inboxes: Inboxes, *workers: Any) -> None:
    """Have workers told of each other."""
    begun: list[Coroutine[Any, Any, None]] = []
    inboxes.introduce(workers, begun.append)
    for each in begun:
        await each


async def test_each_knows_the_others_and_none_itself() -> None:
    """By the row where it counts, with the end that writes into its inbox."""
    inboxes = Inboxes()
    inboxes.grow(2)
    first, second = Meeting(0), Meeting(1)
    await introduced(inboxes, first, second)
    assert (first.met, second.met) == ([([11], 1)], [([10], 1)])
    for index, said in ((0, b"from 1"), (1, b"from 0")):
        with socket.socket(fileno=os.dup(inboxes.reader(index))) as reader:
            assert reader.recv(100) == said
    inboxes.close()


async def test_whom_a_worker_knows_it_is_not_told_of_again() -> None:
    """Only a change is: who comes, who goes, another process in somebody's place."""
    inboxes = Inboxes()
    inboxes.grow(3)
    first, second = Meeting(0), Meeting(1)
    await introduced(inboxes, first, second)
    await introduced(inboxes, first, second)
    assert (len(first.met), len(second.met)) == (1, 1)
    second.row = 20
    await introduced(inboxes, first, second, Meeting(2))
    assert first.met[1] == ([20, 12], 2)
    await introduced(inboxes, first)
    assert first.met[2] == ([], 0)
    inboxes.close()


@pytest.mark.parametrize(("answer", "killed"), [(PeerGone(), False), (PeerError("no descriptor"), True)])
async def test_who_cannot_meet_the_others_is_ended(answer: Exception, *, killed: bool) -> None:
    """It would hand clients to whom it does not know; one that has died needs no more."""
    inboxes = Inboxes()
    inboxes.grow(1)
    worker = Meeting(0, answer)
    worker.siblings = [(1, 11)]
    await introduced(inboxes, worker)
    assert bool(worker.killed) is killed
    inboxes.close()


def test_inboxes_only_become_more() -> None:
    """One that is closed would cost those who are in it; at the end all are."""
    inboxes = Inboxes()
    inboxes.grow(3)
    kept = inboxes.reader(0)
    inboxes.grow(1)
    assert (len(inboxes), inboxes.reader(0)) == (3, kept)
    inboxes.close()
    assert len(inboxes) == 0
