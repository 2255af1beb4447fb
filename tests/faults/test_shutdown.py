"""Signals: SIGTERM lets connections finish, a second one does not, and nothing that waits can hold up the end."""

from __future__ import annotations

import signal
import socket

import pytest

from tests.support.backends import BlackHole, EchoServer
from tests.support.clients import dial, read_exactly, read_to_end
from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort
from tests.support.process import answers
from tests.support.wait import wait_for

QUIET = {"pool": {"mode": "off"}, "health": {"active": {"type": "none"}}}


@pytest.fixture
def listener():
    """A port to listen on."""
    with HeldPort() as port:
        yield port.address


@pytest.fixture
def backend():
    """An echo server."""
    with EchoServer() as server:
        yield server


@pytest.fixture
def plane():
    """A data plane of this test's own."""
    with DataPlane() as plane:
        yield plane


def wait_stopping(plane):
    """Wait until the process has heard of its end."""
    wait_for(lambda: '"stopping"' in plane.output, "the process to begin to end")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_connections_finish(plane, backend, listener, number):
    """After SIGTERM nobody is accepted, those in place go on, and the process ends with the last of them, with 0."""
    plane.put_snapshot({"s": {"listen": listener, "backends": [backend.address], **QUIET}})
    with dial(listener) as client:
        client.sendall(b"before")
        assert read_exactly(client, 6) == b"before"
        plane.send_signal(number)
        plane.wait_draining()
        assert not answers(listener)
        client.sendall(b"after")
        assert read_exactly(client, 5) == b"after"
        assert plane.request("GET", "/readyz")[0] == 503
        assert plane.request("GET", "/livez")[0] == 200
        assert plane.poll() is None
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b""
    assert plane.wait() == 0
    assert not plane.socket.exists()


def test_who_is_in_the_queue_is_served(plane, backend, listener):
    """A client whose connection was complete before SIGTERM is not reset by the end of the listener."""
    plane.put_snapshot({"s": {"listen": listener, "backends": [backend.address], **QUIET}})
    plane.send_signal(signal.SIGSTOP)
    clients = [dial(listener) for _ in range(20)]
    plane.send_signal(signal.SIGTERM)
    plane.send_signal(signal.SIGCONT)
    for client in clients:
        with client:
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            assert read_to_end(client) == b"hello"
    assert plane.wait() == 0


def test_nothing_connected(plane, backend, listener):
    """With nobody connected the process ends at once, its pool and its followers of events notwithstanding."""
    pool = {"mode": "preconnect", "min_idle": 5}
    plane.put_snapshot({"s": {"listen": listener, "backends": [backend.address], "pool": pool}})
    backend.wait_accepted(5)
    with socket.socket(socket.AF_UNIX) as follower:
        follower.connect(str(plane.socket))
        follower.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert follower.recv(12) == b"HTTP/1.1 200"
        plane.send_signal(signal.SIGTERM)
        assert plane.wait(5) == 0


def test_the_drain_timeout(plane, backend, listener):
    """What is left after `drain.timeout` is closed, spread over `drain.close`, with a reason of its own."""
    plane.put_snapshot(
        {
            "s": {
                "listen": listener,
                "backends": [backend.address],
                "drain": {"timeout": "300ms", "close": "300ms"},
                **QUIET,
            }
        }
    )
    clients = [dial(listener) for _ in range(4)]
    plane.wait_status(lambda now: now["services"]["s"]["active"] == 4)
    plane.send_signal(signal.SIGTERM)
    for client in clients:
        with client:
            assert client.recv(1) == b""
    assert plane.wait() == 0


def test_the_second_signal(plane, backend, listener):
    """A second SIGTERM ends the process at once, with 1."""
    plane.put_snapshot({"s": {"listen": listener, "backends": [backend.address], **QUIET}})
    with dial(listener) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        plane.send_signal(signal.SIGTERM)
        wait_stopping(plane)
        plane.send_signal(signal.SIGTERM)
        assert plane.wait(5) == 1
    plane.wait_output('"stopping_now"')


@pytest.mark.parametrize(
    "waits_for",
    [
        {
            "proxy_protocol": {"accept": "required", "trusted": ["127.0.0.0/8"]},
            "timeouts": {"proxy_header": "0s"},
        },
        {"limits": {"connections": 1, "queue": 5, "queue_timeout": "0s"}},
        {"timeouts": {"connect": "0s"}},
    ],
    ids=["header", "place", "dial"],
)
def test_who_waits_for_ever_does_not_hold_up_the_end(plane, listener, waits_for):
    """A client that waits for something without a deadline is ended by the drain timeout like any other."""
    with BlackHole(full=True) as nobody:
        options = {"drain": {"timeout": "200ms", "close": "0s"}, **QUIET, **waits_for}
        plane.put_snapshot({"s": {"listen": listener, "backends": [nobody.address], **options}})
        with dial(listener) as first, dial(listener) as second:
            plane.wait_status(lambda now: now["services"]["s"]["totals"]["connections"] == 2)
            plane.send_signal(signal.SIGTERM)
            assert plane.wait(5) == 0
            assert first.recv(1) == second.recv(1) == b""


def test_sighup_without_a_file(plane, backend, listener):
    """SIGHUP without `--config` changes nothing, and says so."""
    plane.put_snapshot({"s": {"listen": listener, "backends": [backend.address], **QUIET}})
    plane.send_signal(signal.SIGHUP)
    wait_for(lambda: "no --config to read again" in plane.output, "the answer to SIGHUP")
    assert plane.get("/v1/info")["generation"] == 1


def test_killed(backend, listener):
    """After SIGKILL the next start takes the socket over and runs what ran last."""
    with DataPlane() as plane:
        plane.put_snapshot({"s": {"listen": listener, "backends": [backend.address], **QUIET}})
        before = plane.get("/v1/snapshot")
        plane.kill()
        assert plane.socket.exists()
        plane.start()
        assert plane.get("/v1/snapshot") == before
        with dial(listener) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
