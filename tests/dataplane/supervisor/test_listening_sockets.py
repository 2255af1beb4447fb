"""Which worker accepts from which socket, and how one is closed without losing anybody."""

from __future__ import annotations

import socket
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.spec import ListenSpec
from dataplane.errors import Refused
from dataplane.net.syn_filter import let_in
from dataplane.supervisor.listening_sockets import SocketGroup, shares
from tests.support.ports import HeldPort


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
    monkeypatch.setattr("dataplane.supervisor.listening_sockets.GRACE_S", 0.0)
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
