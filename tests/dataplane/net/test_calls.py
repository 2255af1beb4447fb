"""The system calls of the connection path: what each answers, in both forms."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dataplane.net import calls
from dataplane.net.sockopts import to_sockaddr
from tests.dataplane.net.descriptors import adopted, looking
from tests.support.ports import HeldPort

NOTHING = -errno.EAGAIN


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A listening socket that does not block."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


class Pair:
    """Two ends of one connection: a test's socket, and a descriptor."""

    def __init__(self, server: socket.socket) -> None:
        self.far = socket.create_connection(server.getsockname(), 10)
        self.fd, self.address = calls.accept(server, socket.AF_INET)

    def close(self) -> None:
        """Close both ends."""
        self.far.close()
        calls.close(self.fd)


@pytest.fixture
def pair(server: socket.socket) -> Iterator[Pair]:
    """A client and its accepted connection."""
    with closing(Pair(server)) as pair:
        yield pair


@pytest.fixture
def other(server: socket.socket) -> Iterator[Pair]:
    """Another."""
    with closing(Pair(server)) as pair:
        yield pair


def arrive(pair: Pair, data: bytes) -> None:
    """Have `data` sent, and wait until it is there."""
    pair.far.sendall(data)
    with looking(pair.fd) as sock:
        sock.settimeout(10)
        sock.recv(len(data), socket.MSG_PEEK | socket.MSG_WAITALL)


class TestAccept:
    """Clients, one after the other."""

    def test_as_many_as_there_are(self, server: socket.socket) -> None:
        """With their addresses; then there are none."""
        clients = [socket.create_connection(server.getsockname(), 10) for _ in range(3)]
        for client in clients:
            fd, address = calls.accept(server, socket.AF_INET)
            assert address == client.getsockname()
            calls.close(fd)
            client.close()
        assert calls.accept(server, socket.AF_INET) == (NOTHING, None)

    def test_ipv6_has_two_parts(self) -> None:
        """No flow information, no scope."""
        with (
            socket.create_server(("::1", 0), family=socket.AF_INET6) as server,
            socket.create_connection(server.getsockname()[:2], 10) as client,
        ):
            fd, address = calls.accept(server, socket.AF_INET6)
            assert address == client.getsockname()[:2]
            calls.close(fd)

    def test_a_unix_socket_has_no_address(self, tmp_path: Path) -> None:
        """Neither a client's nor one of its own."""
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind(str(tmp_path / "s"))
            server.listen()
            client.connect(str(tmp_path / "s"))
            fd, address = calls.accept(server, socket.AF_UNIX)
            assert address is None
            assert calls.own_name(fd) is None
            calls.close(fd)

    def test_no_listener(self) -> None:
        """An errno, and nobody."""
        with socket.socket() as alone:
            assert calls.accept(alone, socket.AF_INET) == (-errno.EINVAL, None)


class TestPump:
    """One read and one write."""

    def test_what_is_there(self, pair: Pair, other: Pair) -> None:
        """No more than the limit."""
        arrive(pair, b"0123456789")
        assert calls.pump(pair.fd, other.fd, 8) == 8
        assert calls.pump(pair.fd, other.fd, 8) == 2
        assert other.far.recv(100, socket.MSG_WAITALL | socket.MSG_PEEK) in {b"01234567", b"0123456789"}
        assert calls.pump(pair.fd, other.fd, 8) == NOTHING

    def test_a_second_write_waits_for_nothing(self, pair: Pair, other: Pair) -> None:
        """The option is set if there is something to write, and not at the end."""
        option = socket.IPPROTO_TCP, socket.TCP_NODELAY
        calls.set_option(other.fd, *option, 0)
        assert calls.pump(pair.fd, other.fd, 8, True) == NOTHING
        assert calls.option(other.fd, *option) == 0
        arrive(pair, b"word")
        assert calls.pump(pair.fd, other.fd, 8, True) == 4
        assert calls.option(other.fd, *option) == 1

    def test_for_nobody(self, pair: Pair) -> None:
        """It is read all the same."""
        arrive(pair, b"word")
        assert calls.pump(pair.fd, calls.NOBODY, 100) == 4

    def test_the_end(self, pair: Pair, other: Pair) -> None:
        """A FIN reads as nothing, and a reset as its errno."""
        pair.far.shutdown(socket.SHUT_WR)
        with looking(pair.fd) as sock:
            sock.settimeout(10)
            assert not sock.recv(1)
        assert calls.pump(pair.fd, other.fd, 8) == 0
        calls.close(other.fd, reset=True)
        with pytest.raises(ConnectionResetError):
            other.far.recv(1)
        other.fd = adopted(socket.socket())

    def test_a_full_peer(self, pair: Pair, other: Pair) -> None:
        """What it has not taken is kept, in order."""
        written = bytearray()
        while True:
            data = bytes([len(written) % 251]) * 60_000
            arrive(pair, data)
            size = calls.pump(pair.fd, other.fd, 60_000)
            written += data
            if size == calls.SHORT:
                break
            assert size == 60_000
        size, sent, code = calls.last_short()
        assert (size, code) == (60_000, 0)
        assert calls.unsent() == data[sent:]
        other.far.settimeout(10)
        got = bytearray()
        while len(got) < len(written) - size + sent:
            got += other.far.recv(1 << 20)
        assert got == written[: len(got)]

    def test_a_peer_that_is_gone(self, pair: Pair, other: Pair) -> None:
        """Its errno is told beside what was read."""
        calls.finish(other.fd)
        arrive(pair, b"word")
        assert calls.pump(pair.fd, other.fd, 100) == calls.SHORT
        assert calls.last_short() == (4, 0, errno.EPIPE)

    def test_a_reset(self, pair: Pair, other: Pair) -> None:
        """Reading meets it."""
        pair.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        pair.far.close()
        assert calls.pump(pair.fd, other.fd, 8) == -errno.ECONNRESET


class TestReading:
    """Outside of the relay."""

    def test_bytes_that_stay(self, pair: Pair) -> None:
        """A look takes nothing."""
        assert calls.peek(pair.fd) == NOTHING
        assert calls.receive(pair.fd, 10) == (b"", errno.EAGAIN)
        arrive(pair, b"hello")
        assert calls.peek(pair.fd) == 1
        assert calls.receive(pair.fd, 3, leave=True) == (b"hel", 0)
        assert calls.receive(pair.fd, 10) == (b"hello", 0)

    def test_the_end(self, pair: Pair) -> None:
        """It is neither bytes nor an error."""
        pair.far.shutdown(socket.SHUT_WR)
        with looking(pair.fd) as sock:
            sock.settimeout(10)
            assert not sock.recv(1)
        assert calls.peek(pair.fd) == 0
        assert calls.receive(pair.fd, 10) == (b"", 0)

    def test_its_own_side(self, pair: Pair) -> None:
        """Address and port."""
        assert calls.own_name(pair.fd) == pair.far.getpeername()


class TestWriting:
    """Outside of the relay."""

    def test_bytes(self, pair: Pair) -> None:
        """From bytes and from a part of some."""
        assert calls.send(pair.fd, b"hel") == 3
        assert calls.send(pair.fd, memoryview(b"hello")[3:]) == 2
        assert pair.far.recv(5, socket.MSG_WAITALL) == b"hello"

    def test_until_it_is_full(self, pair: Pair) -> None:
        """Then it says so, and does not wait."""
        while (sent := calls.send(pair.fd, bytes(1 << 20))) > 0:
            pass
        assert sent == NOTHING

    def test_after_the_end(self, pair: Pair) -> None:
        """The errno, and no signal."""
        calls.finish(pair.fd)
        assert not pair.far.recv(1)
        assert calls.send(pair.fd, b"late") == -errno.EPIPE
        calls.finish(pair.fd)

    def test_options(self, pair: Pair) -> None:
        """A number is set, and its first byte read."""
        assert calls.set_option(pair.fd, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) == 0
        assert calls.option(pair.fd, socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert calls.set_option(pair.fd, socket.IPPROTO_TCP, 9999, 1) == errno.ENOPROTOOPT
        assert calls.option(pair.fd, socket.IPPROTO_TCP, 9999) == -errno.ENOPROTOOPT


def packed(address: str) -> object:
    """Return an address as the calls take it."""
    where = to_sockaddr(address)
    assert where is not None
    return where.packed


class TestDial:
    """Connections that we begin."""

    def test_it_is_connected(self, server: socket.socket) -> None:
        """At once, on loopback; the descriptor is ours alone, and Nagle's delay is left to the leg."""
        port = server.getsockname()[1]
        fd, code = calls.dial(socket.AF_INET, packed(f"127.0.0.1:{port}"), 1 << 20, check=True)
        assert code == 0
        with looking(fd) as sock:
            assert sock.getpeername() == server.getsockname()
            assert not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not os.get_inheritable(fd)
        calls.close(fd)

    def test_nobody_listens(self) -> None:
        """The descriptor is there all the same, and is to be closed."""
        with HeldPort() as port:
            fd, code = calls.dial(socket.AF_INET, packed(port.address), 1 << 20, check=False)
            assert code == errno.ECONNREFUSED
            calls.close(fd)

    def test_the_reserve(self, no_leaks: None) -> None:
        """Whose number would be too high is none."""
        assert calls.dial(socket.AF_INET, packed("127.0.0.1:1"), 0, check=False) == (
            calls.NOBODY,
            errno.EMFILE,
        )

    def test_ipv6_and_unix(self, tmp_path: Path) -> None:
        """The other families."""
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
            port = server.getsockname()[1]
            fd, code = calls.dial(socket.AF_INET6, packed(f"[::1]:{port}"), 1 << 20, check=True)
            assert code == 0
            assert calls.own_name(fd) is not None
            calls.close(fd)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / "s"))
            server.listen()
            fd, code = calls.dial(socket.AF_UNIX, packed(f"unix:{tmp_path / 's'}"), 1 << 20, check=False)
            assert code == 0
            calls.close(fd)
        fd, code = calls.dial(socket.AF_UNIX, packed(f"unix:{tmp_path / 't'}"), 1 << 20, check=False)
        assert code == errno.ENOENT
        calls.close(fd)

    def test_never_to_oneself(self) -> None:
        """A socket that has chosen the very port that it dials, and so met itself, is told from a real connection."""
        alone = socket.socket()
        alone.bind(("127.0.0.1", 0))
        host, port = alone.getsockname()
        fd = adopted(alone)
        assert calls.connect(fd, packed(f"{host}:{port}"), check=True) == errno.ECONNREFUSED
        calls.close(fd)

    def test_how_it_went(self, server: socket.socket) -> None:
        """Asked again, a connection that is there is no error."""
        where = packed(f"127.0.0.1:{server.getsockname()[1]}")
        fd, code = calls.dial(socket.AF_INET, where, 1 << 20, check=False)
        assert code == 0
        assert calls.connect(fd, where, check=False) == 0
        calls.close(fd)
