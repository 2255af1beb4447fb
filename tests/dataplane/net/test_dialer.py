"""Dials: begun without waiting, and never to oneself."""

from __future__ import annotations

import errno
import socket

import pytest

from dataplane.net.calls import NOBODY, close
from dataplane.net.dialer import PENDING, begin
from dataplane.net.sockopts import to_sockaddr
from tests.support.ports import HeldPort


def test_loopback_is_connected_at_once():
    """The second question spares the wait for epoll."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        fd, code = begin(to_sockaddr(f"127.0.0.1:{server.getsockname()[1]}"), 4096)
        assert code == 0
        close(fd)


def test_refused():
    """The errno tells, at once."""
    with HeldPort() as port:
        fd, code = begin(to_sockaddr(port.address), 4096)
        assert code == errno.ECONNREFUSED
        close(fd)


def test_nobody_answers():
    """A handshake that is not over is PENDING."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = to_sockaddr(f"127.0.0.1:{server.getsockname()[1]}")
        begun = [begin(address, 4096) for _ in range(3)]
        assert begun[-1][1] == PENDING
        for fd, _ in begun:
            close(fd)


def test_the_reserve(no_leaks):
    """At the ceiling no dial is begun: those descriptors are for others."""
    assert begin(to_sockaddr("127.0.0.1:1"), 0) == (NOBODY, errno.EMFILE)


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
