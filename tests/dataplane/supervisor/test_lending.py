"""Who holds which sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Coroutine, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.spec import ListenSpec
from dataplane.errors import PeerError, PeerGone, Refused
from dataplane.net.syn_filter import let_in
from dataplane.supervisor.lending import Inboxes, SocketGroup, shares
from tests.dataplane.supervisor.fleet import ADDRESS, fleet, settled
from tests.support.ports import HeldPort


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


@given(count=st.integers(1, 40), workers=st.integers(1, 16), data=st.data())
@settings(deadline=None)
def test_each_socket_has_a_worker_and_each_worker_a_socket(
    count: int, workers: int, data: st.DataObject
) -> None:
    """As long as any worker is alive, no queue is without somebody, and nobody is idle."""
    live = data.draw(st.sets(st.integers(0, workers - 1), min_size=1))
    given_out = shares(count, live, workers)
    assert given_out.keys() == live
    assert {index for held in given_out.values() for index in held} == set(range(count))
    assert all(given_out.values())


@given(more=st.integers(0, 24), workers=st.integers(2, 16), data=st.data())
@settings(deadline=None)
def test_a_death_moves_only_the_dead_workers_sockets(more: int, workers: int, data: st.DataObject) -> None:
    """Where each worker has sockets of its own, whoever is there keeps them, whoever else dies."""
    count = workers + more
    dead = data.draw(st.integers(0, workers - 1))
    before = shares(count, range(workers), workers)
    after = shares(count, set(range(workers)) - {dead}, workers)
    assert all(set(before[worker]) <= set(after[worker]) for worker in after)


def test_nobody_is_there() -> None:
    """Without a worker nothing is given out."""
    assert shares(3, [], 2) == {}


async def test_an_address_gets_a_socket_for_each_worker() -> None:
    """All of them are bound to the one address, and kept until it is shut."""
    group = SocketGroup(lambda: 3)
    with HeldPort() as port:
        group.new.prepare([port.address])
        group.open({port.address: "web"})
        assert {sock.getsockname()[1] for sock in group.sockets[port.address]} == {port.port}
        assert len(group.sockets[port.address]) == 3
        group.shut({})
        assert group.sockets == {}
        group.finish()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((port.host, port.port))


async def test_options_of_listeners(tmp_path: Path) -> None:
    """Workers' sockets have them as well, those that are opened for another worker, and a Unix socket that is there."""
    count = 1
    group = SocketGroup(lambda: count)
    unix = f"unix:{tmp_path}/s"
    free, plain = "192.0.2.1:80", ListenSpec(mode=0o666)
    group.new.prepare([unix, free], {unix: plain, free: ListenSpec(freebind=True)})
    group.open({unix: "web", free: "web"})
    count = 2
    group.grow()
    assert len(group.sockets[free]) == 2
    group.new.prepare([unix, free], {unix: ListenSpec(mode=0o600)})
    group.new.abandon()
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o666
    with pytest.raises(Refused, match="there is no group nobody-has-it"):
        group.new.rehearse([unix], {unix: ListenSpec(group="nobody-has-it")})
    group.close()


async def test_one_address_that_cannot_be_had_undoes_all() -> None:
    """A change opens all of its sockets or none."""
    group = SocketGroup(lambda: 2)
    with HeldPort() as port, socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(Refused, match="cannot listen"):
            group.new.prepare([port.address, f"127.0.0.1:{taken.getsockname()[1]}"])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((port.host, port.port))


async def test_who_is_kept_out_can_be_let_in_again() -> None:
    """A SYN to a listener that goes is dropped; whoever is in its queue stays there; and it can be taken back."""
    group = SocketGroup(lambda: 1)
    with HeldPort() as port:
        group.new.prepare([port.address])
        group.open({port.address: "web"})
        with socket.create_connection((port.host, port.port)):
            await group.keep_out()
            with socket.socket() as late:
                late.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    late.connect((port.host, port.port))
            let_in(group.sockets[port.address][0])
            with socket.create_connection((port.host, port.port), timeout=10):
                listener = group.sockets[port.address][0]
                accepted = [listener.accept()[0] for _ in range(2)]
                for sock in accepted:
                    sock.close()
        group.close()


async def test_growing_opens_what_is_missing() -> None:
    """Each further worker gets a socket of its own where the kernel can spread clients, and none elsewhere."""
    workers = [1]
    group = SocketGroup(lambda: workers[0])
    with HeldPort() as port:
        with socket.create_server(("127.0.0.1", 0)) as outside:
            address = f"127.0.0.1:{outside.getsockname()[1]}"
            group.new.inherited = {address: [outside.dup()]}
            group.new.prepare([port.address, address])
            group.open({port.address: "web", address: "web"})
            sizes = []
            for workers[0] in (1, 3, 2):
                group.grow()
                sizes.append(len(group.sockets[port.address]))
            assert sizes == [1, 3, 3]
            assert all(later >= earlier for earlier, later in pairwise(sizes))
            assert len(group.sockets[address]) == 1
        group.leave()


async def test_what_was_inherited_and_never_used_is_closed_with_the_rest() -> None:
    """A process that drains must not keep a port open from which nobody accepts."""
    for end in ("close", "leave"):
        group = SocketGroup(lambda: 1)
        with socket.create_server(("127.0.0.1", 0)) as outside:
            address = outside.getsockname()
            group.new.inherited = {"x": [outside]}
            getattr(group, end)()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)


async def test_of_what_was_inherited_only_what_may_wait_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is closed, and its clients are refused."""
    monkeypatch.setattr("dataplane.supervisor.lending.GRACE_S", 0.0)
    group = SocketGroup(lambda: 1)
    with HeldPort() as waits, HeldPort() as orphaned:
        ends = {
            port.address: [socket.create_server((port.host, port.port), reuse_port=True)]
            for port in (waits, orphaned)
        }
        group.new.inherit(ends)
        assert await group.close_inherited([waits.address]) == [orphaned.address]
        socket.create_connection((waits.host, waits.port)).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((orphaned.host, orphaned.port))
        group.close()
