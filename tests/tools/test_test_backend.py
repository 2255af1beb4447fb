"""The backend that people try the balancer with does what each of its switches says."""

import os
import re
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.clients import ask, dial, read_exactly, read_to_end, read_to_reset
from tests.support.process import Program
from tools.send import exchange

TOOLS = Path(__file__).resolve().parents[2] / "tools"
FIRST = "listening on "


class TestBackend(Program):
    """`tools/test_backend.py` on a port of its own."""

    __test__ = False

    def __init__(self, *arguments):
        super().__init__([sys.executable, str(TOOLS / "test_backend.py"), *arguments])

    def ready(self):
        """Say yes once it has printed its address."""
        return self.output.startswith(FIRST) and self.output.endswith("\n")

    @property
    def address(self):
        """What it printed."""
        return self.output.splitlines()[0].removeprefix(FIRST)


def test_says_who_answered():
    """An answer has host, process, time and the message."""
    with TestBackend() as backend:
        answer = ask(backend.address, b"hello\nping\n").decode()
        host, pid = re.escape(socket.gethostname()), backend.pid
        assert re.fullmatch(rf"{host} {pid} \d{{4}}-\d\d-\d\dT[\d:.]+\+00:00: hello\npong\n", answer)


def test_message_without_newline_is_answered_at_once():
    """A client that sends no newline does not wait for its answer."""
    with TestBackend("--name", "one") as backend, dial(backend.address) as client:
        client.sendall(b"ping")
        assert read_exactly(client, 5) == b"pong\n"
        client.sendall(b"who")
        assert client.recv(100).startswith(b"one ")


def test_banner_size_and_close():
    """A banner comes first, an answer has the size asked for, and the end comes after N."""
    with (
        TestBackend("--banner", "hello", "--size", "1000", "--close-after", "2") as backend,
        dial(backend.address) as client,
    ):
        assert read_exactly(client, 6) == b"hello\n"
        client.sendall(b"a\n")
        assert len(read_exactly(client, 1000)) == 1000
        client.sendall(b"b\n")
        assert len(read_to_end(client)) == 1000


def test_half_close():
    """The one answer comes after the client's end."""
    with TestBackend("--half-close", "--delay", "0.01") as backend:
        assert ask(backend.address, b"a\nb").endswith(b": a\nb\n")


def test_reset_and_silence():
    """A reset is a reset, and silence lasts until the client leaves."""
    with TestBackend("--reset") as backend, dial(backend.address) as client:
        client.sendall(b"a")
        assert read_to_reset(client) == b""
    with TestBackend("--silent") as backend:
        assert ask(backend.address) == b""


def test_crash():
    """It dies after its Nth answer, without a word."""
    with TestBackend("--crash-after", "2") as backend, dial(backend.address) as client:
        client.sendall(b"a\nping\nping\n")
        assert backend.wait() == 1


@pytest.mark.parametrize(
    ("header", "carried"),
    [
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n", "192.0.2.1:1234"),
        (b"PROXY UNKNOWN\r\n", "unknown"),
        (
            b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"
            + bytes([192, 0, 2, 1, 192, 0, 2, 2])
            + b"\x04\xd2\x00\x50",
            "192.0.2.1:1234",
        ),
        (b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", "local"),
    ],
    ids=["v1", "v1-unknown", "v2", "v2-local"],
)
def test_proxy_header(header, carried):
    """What a PROXY header carries is told in the answer."""
    with TestBackend("--proxy") as backend:
        assert f" for {carried}: hello\n" in ask(backend.address, header + b"hello\n").decode()


def test_unix_socket(tmp_path):
    """It listens on a path, and removes it at the end."""
    with TestBackend("--unix", str(tmp_path / "s")) as backend:
        assert backend.address == f"unix:{tmp_path / 's'}"
        assert ask(backend.address, b"ping\n") == b"pong\n"
        assert backend.stop() == 0
        assert not (tmp_path / "s").exists()


def send(*arguments, data=b"ping\n"):
    """Run `tools/send.py`."""
    return subprocess.run(
        [sys.executable, str(TOOLS / "send.py"), *arguments],
        input=data,
        capture_output=True,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )


def test_send():
    """The answer of each connection is printed, and a port that refuses is an error."""
    with TestBackend() as backend:
        host, _, port = backend.address.rpartition(":")
        assert send(host, port).stdout == b"pong\n"
        assert send(host, port, "--count", "3").stdout == b"pong\n" * 3
    done = send(host, port)
    assert done.returncode == 1
    assert b"refused" in done.stderr


def test_send_gives_up():
    """A backend that never answers ends in an error."""
    with TestBackend("--delay", "60") as backend:
        host, _, port = backend.address.rpartition(":")
        done = send(host, port, "--timeout", "0.2")
    assert done.returncode == 1
    assert done.stderr == b"send.py: no answer within 0.2 s\n"


class Impatient(socket.socket):
    """A socket whose first wait for an answer is over at once; it tells, and then waits longer."""

    def __init__(self, sock):
        super().__init__(sock.family, sock.type, sock.proto, sock.detach())
        self.settimeout(0.001)
        self.waited = threading.Event()

    def recv(self, *arguments):
        """Receive as ever."""
        try:
            return super().recv(*arguments)
        except TimeoutError:
            self.settimeout(10)
            self.waited.set()
            raise


def test_send_waits_for_who_types(monkeypatch, capfdbinary):
    """While the input goes on, silence ends nothing: who types may take longer than the timeout."""
    near, far = socket.socketpair()
    client = Impatient(near)
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stdin, far:
        monkeypatch.setattr(sys, "stdin", stdin)
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(exchange, client, None)
            assert client.waited.wait(10)
            os.write(writer, b"ping\n")
            os.close(writer)
            assert read_to_end(far) == b"ping\n"
            far.sendall(b"pong\n")
            far.shutdown(socket.SHUT_WR)
            done.result(10)
    assert capfdbinary.readouterr().out == b"pong\n"


def test_send_tells_of_an_empty_answer():
    """Whoever asked and got nothing is told so: a balancer without a backend closes without a word."""
    with TestBackend("--silent") as backend:
        host, _, port = backend.address.rpartition(":")
        done = send(host, port)
        assert (done.returncode, done.stderr) == (1, b"send.py: closed without an answer\n")
        assert send(host, port, "--count", "2").returncode == 1
        assert send(host, port, data=b"").returncode == 0
