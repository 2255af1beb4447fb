"""Dials: begun without waiting, and never to oneself."""

from __future__ import annotations

import errno
import socket

import pytest

from dataplane.net.dialer import PENDING, _is_own_reflection, begin
from dataplane.net.sockopts import to_sockaddr
from tests.support.ports import HeldPort


def test_loopback_is_connected_at_once():
    """The second question spares the wait for epoll."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock, code = begin(to_sockaddr(f"127.0.0.1:{server.getsockname()[1]}"), 4096)
        assert code == 0
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        sock.close()


def test_refused():
    """The errno tells, at once."""
    with HeldPort() as port:
        sock, code = begin(to_sockaddr(port.address), 4096)
        assert code == errno.ECONNREFUSED
        sock.close()


def test_nobody_answers():
    """A handshake that is not over is PENDING."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = to_sockaddr(f"127.0.0.1:{server.getsockname()[1]}")
        socks = [begin(address, 4096) for _ in range(3)]
        assert socks[-1][1] == PENDING
        for sock, _ in socks:
            sock.close()


def test_never_to_oneself():
    """A socket that has chosen the very port that it dials, and so met itself, is told from a real connection."""
    with socket.socket() as alone:
        alone.bind(("127.0.0.1", 0))
        host, port = alone.getsockname()
        alone.connect((host, port))
        assert _is_own_reflection(alone, to_sockaddr(f"{host}:{port}"))
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert not _is_own_reflection(client, to_sockaddr(f"127.0.0.1:{server.getsockname()[1]}"))


def test_the_reserve(no_leaks):
    """At the ceiling no dial is begun: those descriptors are for others."""
    with pytest.raises(OSError, match="Too many open files") as refused:
        begin(to_sockaddr("127.0.0.1:1"), 0)
    assert refused.value.errno == errno.EMFILE


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:80", (socket.AF_INET, ("127.0.0.1", 80))),
        ("[::1]:80", (socket.AF_INET6, ("::1", 80))),
        ("unix:/run/x.sock", (socket.AF_UNIX, "/run/x.sock")),
    ],
)
def test_addresses(address, expected):
    """Literals become what connect() takes."""
    assert to_sockaddr(address)[:2] == expected


@pytest.mark.parametrize("address", ["db.example:80", "localhost:1"])
def test_names(address):
    """A host name is somebody else's work."""
    assert to_sockaddr(address) is None
