"""The support's own tests: servers that misbehave must misbehave as they say."""

import hashlib
import socket

import pytest

from tests.support.backends import (
    BannerServer,
    BlackHole,
    EarlyAnswerer,
    EchoServer,
    HalfCloser,
    LineServer,
    Recorder,
    Resetter,
    Sink,
    Source,
    payload,
)
from tests.support.clients import dial, read_to_end, read_to_reset
from tests.support.ports import HeldPort


def test_echo_half_close():
    """The echo answers what came before the FIN, and ends after it."""
    with EchoServer() as server, dial(server.address) as client:
        client.sendall(b"abc")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b"abc"
        server.wait_active(0)
        assert server.accepted == 1


def test_line_server_names_itself():
    """An answer says who gave it, and a last line without a newline counts."""
    with LineServer("one") as server, dial(server.address) as client:
        client.sendall(b"a\nb")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b"one:a\none:b\n"


def test_banner_comes_unasked():
    """A banner is there before the client has said anything."""
    with BannerServer(banner=b"hello\n") as server, dial(server.address) as client:
        assert client.recv(100) == b"hello\n"


def test_half_closer_waits_for_fin():
    """The answer comes only after the client's FIN."""
    with HalfCloser(answer=b"done") as server, dial(server.address) as client:
        client.sendall(b"request")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b"done"
        assert server.requests == [b"request"]


def test_early_answerer_resets_behind_its_answer():
    """Its whole answer arrives, and then a RST, since it leaves the request unread."""
    with EarlyAnswerer() as server, dial(server.address) as client:
        client.sendall(b"x" * 1000)
        assert read_to_reset(client) == server.answer


@pytest.mark.parametrize("after", [0, 1, 100_000])
def test_resetter_counts(after):
    """Exactly `after` bytes arrive before the RST."""
    with Resetter(after=after) as server, dial(server.address) as client:
        client.sendall(b"go")
        assert read_to_reset(client) == payload(after)


def test_sink_hashes():
    """A sink tells size and digest of what each connection brought."""
    data = payload(300_000)
    with Sink() as server:
        with dial(server.address) as client:
            client.sendall(data)
        server.wait_until(lambda: server.totals)
        assert server.totals == [(300_000, hashlib.sha256(data).hexdigest())]


def test_source_sends_everything():
    """A source needs no request."""
    data = payload(300_000)
    with Source(data=data) as server, dial(server.address) as client:
        assert read_to_end(client) == data


def test_recorder_keeps_each_stream():
    """Streams are kept apart, in order of arrival, and each read is answered."""
    with Recorder(answer=b"+") as server, dial(server.address) as first, dial(server.address) as second:
        first.sendall(b"one")
        assert first.recv(10) == b"+"
        second.sendall(b"two")
        server.wait_received(b"one", 0)
        server.wait_received(b"two", 1)


def test_black_hole_is_silent():
    """A connection completes, and is never accepted."""
    with BlackHole() as server, dial(server.address):
        server.wait_until(lambda: server.queued() == 1)
        assert server.accepted == 0


def test_full_black_hole_drops_syns():
    """With a full queue, a connection does not even complete."""
    with BlackHole(full=True) as server, pytest.raises(TimeoutError):
        dial(server.address, timeout_s=0.3)


def test_stop_refuses_and_start_returns_on_the_same_port():
    """A stopped server refuses, and a started one is back where it was."""
    with EchoServer() as server:
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            dial(server.address)
        server.start()
        with dial(server.address) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"


def test_refuse_leaves_connections_in_place():
    """After `refuse`, nobody new gets in and nobody is thrown out."""
    with EchoServer() as server, dial(server.address) as client:
        server.wait_accepted(1)
        server.refuse()
        with pytest.raises(ConnectionRefusedError):
            dial(server.address)
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        server.listen_again()
        dial(server.address).close()


def test_kill_resets_and_stop_finishes():
    """`kill` ends connections with a RST, `stop` with a FIN."""
    with EchoServer() as server:
        with dial(server.address) as client:
            server.wait_accepted(1)
            server.kill()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        server.start()
        with dial(server.address) as client:
            server.wait_accepted(2)
            server.stop()
            assert client.recv(1) == b""


def test_unix_socket(tmp_path):
    """A server listens on a path as well."""
    with EchoServer(unix=tmp_path / "s") as server, dial(server.address) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        assert server.address == f"unix:{tmp_path / 's'}"


def test_held_port_is_refused_and_can_be_listened_on():
    """Nobody answers on a held port, until somebody binds it by number."""
    with HeldPort() as held:
        with pytest.raises(ConnectionRefusedError):
            dial(held.address)
        with (
            socket.create_server((held.host, held.port)) as listener,
            dial(held.address),
        ):
            listener.accept()[0].close()
