"""What the kernel is asked for, and what its words mean."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from pathlib import Path

import pytest

from dataplane.net.calls import close
from dataplane.net.sockopts import (
    events_now,
    to_sockaddr,
    tune_listener,
    unsent_bytes,
    user_timeout_ms,
)
from tests.dataplane.net.descriptors import adopted


@pytest.mark.parametrize(
    ("written", "family", "sockaddr"),
    [
        ("127.0.0.1:80", socket.AF_INET, ("127.0.0.1", 80)),
        ("[2001:db8::1]:80", socket.AF_INET6, ("2001:db8::1", 80)),
        ("[fe80::1%lo]:80", socket.AF_INET6, ("fe80::1", 80, 0, socket.if_nametoindex("lo"))),
        ("unix:/run/x.sock", socket.AF_UNIX, "/run/x.sock"),
    ],
)
def test_an_address_as_the_kernel_takes_it(written: str, family: int, sockaddr: object) -> None:
    """With the number of its interface, if it names one."""
    found = to_sockaddr(written)
    assert found is not None
    assert found[:2] == (family, sockaddr)


@pytest.mark.parametrize("written", ["name.example:80", "[fe80::1%nowhere]:80", "300.1.1.1:80"])
def test_what_is_no_address(written: str) -> None:
    """A name has to be looked up; an interface may be there later."""
    assert to_sockaddr(written) is None


def test_ports_that_outgoing_connections_get_are_known() -> None:
    """A connection to one of them may meet itself."""
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ephemeral = {
        port: found.ephemeral
        for port in (low - 1, low, high, min(high + 1, 65535))
        if (found := to_sockaddr(f"127.0.0.1:{port}"))
    }
    assert ephemeral == {low - 1: False, low: True, high: True, min(high + 1, 65535): high == 65535}


def test_another_port_of_the_same_host() -> None:
    """With its scope, if it has one; a Unix socket has no ports."""
    for written, other in (
        ("127.0.0.1:80", ("127.0.0.1", 81)),
        ("[fe80::1%lo]:80", ("fe80::1", 81, 0, socket.if_nametoindex("lo"))),
        ("unix:/x", "/x"),
    ):
        found = to_sockaddr(written)
        assert found is not None
        assert found.at_port(81).sockaddr == other


@pytest.mark.parametrize(
    ("idle_s", "timeout_ms"), [(0.0, 0), (1.0, 30_000), (30.5, 30_500), (600.0, 600_000)]
)
def test_unacknowledged_data_is_waited_for_as_long_as_an_idle_client(idle_s: float, timeout_ms: int) -> None:
    """And never for less than half a minute; without a limit the kernel's holds."""
    assert user_timeout_ms(idle_s) == timeout_ms


def test_accepted_sockets_have_what_their_listener_has() -> None:
    """So that a client costs no call for it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tune_listener(listener, 60.0)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000


def test_a_unix_listener_has_none_of_it(tmp_path: Path) -> None:
    """Nothing is asked for that its family does not know."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(tmp_path / "s"))
        tune_listener(listener, 60.0)


def test_what_the_peer_has_not_taken_yet() -> None:
    """In bytes; and what the kernel would report of the socket now."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as accepted,
    ):
        client.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += client.send(b"x" * 65536)
        fd = adopted(client)
        assert 0 < unsent_bytes(fd) <= sent
        both = select.EPOLLIN | select.EPOLLOUT
        assert events_now(accepted, both) == both
        assert events_now(fd, select.EPOLLIN) == 0
        close(fd)
