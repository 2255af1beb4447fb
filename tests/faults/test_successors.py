"""A port is open only where somebody accepts from it, whoever has held its socket before."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.backends import LineServer
from tests.support.clients import dial, read_exactly
from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort
from tests.support.wait import wait_for


class Site:
    """A data plane with one long flow, whose successors share its directories."""

    def __init__(self, stack: ExitStack, *arguments: str) -> None:
        self._stack = stack
        self.backend = stack.enter_context(LineServer("a"))
        self.port = stack.enter_context(HeldPort())
        self.plane = stack.enter_context(DataPlane(arguments))
        self.plane.put_snapshot(
            {
                "web": {
                    "listen": self.port.address,
                    "backends": [self.backend.address],
                    "pool": {"mode": "off"},
                }
            }
        )
        self.flow = self.client()

    def client(self) -> socket.socket:
        """Connect a client, and see that it is served."""
        client = self._stack.enter_context(dial(self.port.address))
        self.ask(client)
        return client

    @staticmethod
    def ask(client: socket.socket) -> None:
        """See that a client is served."""
        client.sendall(b"x\n")
        assert read_exactly(client, 2) == b"a:"
        while client.recv(1) != b"\n":
            pass

    def successor(self, *arguments: str) -> DataPlane:
        """Return another data plane of the same name and directories, not started yet."""
        plane = DataPlane(arguments, runtime_dir=self.plane.runtime_dir)
        plane.state_dir = self.plane.state_dir
        plane._environment["LB_STATE_DIR"] = str(self.plane.state_dir)
        self._stack.callback(plane.close)
        return plane

    def take_over(self) -> DataPlane:
        """Start a successor with the flow left behind; return it."""
        return self.successor("--workers", "2", "--takeover").start()

    def refused(self) -> bool:
        """Tell whether a new client is refused; one that is neither refused nor let in fails the test."""
        with socket.socket() as client:
            client.settimeout(5)
            return client.connect_ex((self.port.host, self.port.port)) == errno.ECONNREFUSED


@pytest.fixture(params=[["--workers", "1"], ["--workers", "2"]], ids=["single", "supervisor"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A predecessor of each kind."""
    with ExitStack() as stack:
        yield Site(stack, *request.param)


def test_a_port_is_closed_when_a_successor_has_stopped(site: Site) -> None:
    """The predecessor, which still drains, has let go of the sockets: nobody waits in a queue that nobody serves."""
    successor = site.take_over()
    site.client().close()
    assert successor.stop() == 0
    assert site.refused()
    site.ask(site.flow)


def test_a_port_is_closed_when_a_successor_was_killed(site: Site) -> None:
    """The same if it and its workers have no time to close anything."""
    successor = site.take_over()
    workers = [worker["pid"] for worker in successor.status()["workers"]]
    successor.kill()
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    wait_for(site.refused, "the port to be closed")
    site.ask(site.flow)


def test_a_successor_that_is_told_to_end_while_it_starts_takes_nothing(site: Site) -> None:
    """Whoever runs goes on: a port that was served is served."""
    site.plane.send_signal(signal.SIGSTOP)
    successor = site.successor("--workers", "2", "--takeover")
    successor._spawn()
    wait_for(lambda: _catches(successor.pid, signal.SIGTERM), "the successor to hear signals")
    successor.send_signal(signal.SIGTERM)
    site.plane.send_signal(signal.SIGCONT)
    assert successor.wait(20) == 1
    assert "this process was told to end" in successor.output
    site.client().close()
    site.ask(site.flow)
    assert site.plane.get("/readyz") == {"status": "ok"}


def _catches(pid: int, number: signal.Signals) -> bool:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(fields["SigCgt"], 16) >> (number - 1) & 1)
