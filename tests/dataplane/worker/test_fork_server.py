"""The process that workers are forked from, without what they do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dataplane.worker import fork_server


class Server:
    """One that runs in a child of this process; its workers send their pid, and end with a status that they are sent."""

    def __init__(self) -> None:
        self.orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.orders.settimeout(30)
        self.pid = os.fork()
        if self.pid == 0:
            self.orders.close()
            _serve(theirs)
        theirs.close()

    def fork(self) -> tuple[int, socket.socket]:
        """Ask for a worker; return its pid and our end of its channel."""
        ours, theirs = socket.socketpair()
        ours.settimeout(30)
        with theirs:
            socket.send_fds(self.orders, [b"fork"], [theirs.fileno()])
            return int(self.orders.recv(32)), ours

    def status(self, pid: int) -> int:
        """Ask how a worker ended."""
        self.orders.send(str(pid).encode())
        return int(self.orders.recv(32))


def _serve(orders: socket.socket) -> None:
    status = 99
    try:
        channel = fork_server.serve(orders)
        if channel is None:
            status = 0
        else:
            channel.sendall(f"{os.getpid()} {int(signal.getsignal(signal.SIGTERM))}".encode())
            status = int(channel.recv(8) or 0)
    finally:
        os._exit(status)


@contextmanager
def _server() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.orders.close()
        _, status = os.waitpid(server.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_workers_are_told_apart_and_so_are_their_ends() -> None:
    """Each has a channel of its own, and ends by itself or by a signal; SIGTERM is the worker's own again."""
    with _server() as server:
        first, its = server.fork()
        second, others = server.fork()
        with its, others:
            assert its.recv(64).split() == [str(first).encode(), b"0"]
            assert others.recv(64).split()[0] == str(second).encode()
            os.kill(second, signal.SIGKILL)
            assert others.recv(1) == b""  # nobody else holds the other end
            its.sendall(b"7")
            assert (server.status(first), server.status(second)) == (7, -signal.SIGKILL)


def test_what_is_sent_to_all_processes_does_not_end_it() -> None:
    """A service manager's SIGTERM is for the others; it ends with its supervisor's socket, and its workers go on."""
    with _server() as server:
        _, its = server.fork()
        os.kill(server.pid, signal.SIGTERM)
        _, others = server.fork()
        others.close()
    with its:
        assert its.recv(64)
        its.sendall(b"0")
        assert its.recv(1) == b""


def test_a_fork_that_cannot_be_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of the error, negative; and the next one may be."""

    def refuse() -> int:
        raise BlockingIOError(11, "no more processes")

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = signal.getsignal(signal.SIGTERM)
    with ours, theirs, socket.socket() as channel:
        socket.send_fds(ours, [b"fork"], [channel.fileno()])
        ours.shutdown(socket.SHUT_WR)
        monkeypatch.setattr(os, "fork", refuse)
        try:
            assert fork_server.serve(theirs) is None
        finally:
            signal.signal(signal.SIGTERM, before)
        assert ours.recv(32) == b"-11"


_SUPERVISOR = """
import os, signal, socket
from dataplane.worker import fork_server

listening = socket.create_server(("127.0.0.1", 0))
begun = fork_server.begin()
begun.orders.setblocking(True)
ours, theirs = socket.socketpair()
with ours, theirs:
    socket.send_fds(begun.orders, [b"fork"], [theirs.fileno()])
    worker = int(begun.orders.recv(32))
files = [os.readlink(f"/proc/{begun.pid}/fd/{name}") for name in sorted(os.listdir(f"/proc/{begun.pid}/fd"))]
begun.orders.send(str(worker).encode())
print("stdin", files[0])
print("sockets", sum(one.startswith("socket:") for one in files))
print("worker", begun.orders.recv(32).decode())
os.kill(begun.pid, signal.SIGINT)
os.kill(begun.pid, signal.SIGTERM)
begun.orders.close()
print("ended", os.waitpid(begun.pid, 0)[1])
print("blocked", len(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
"""


def test_one_that_is_forked_has_nothing_of_the_supervisors() -> None:
    """No socket but its orders, and so has no worker of it; it ends by these alone, and workers end as they do."""
    run = [sys.executable, "-c", _SUPERVISOR]
    done = subprocess.run(run, capture_output=True, text=True, check=True, timeout=50)
    assert done.stdout.splitlines() == ["stdin /dev/null", "sockets 1", "worker 0", "ended 0", "blocked 0"]
    assert not done.stderr
