"""A process that drains gives its name away: the next one of that name serves at once, and nobody is lost."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.controlplane.operations.commands import Control, Daemon
from tests.support.backends import LineServer
from tests.support.clients import dial, read_exactly
from tests.support.dataplane import DataPlane, unix_request
from tests.support.ports import HeldPort
from tests.support.wait import wait_for


class Site:
    """A data plane with one long flow, and others of its name and directories."""

    def __init__(self, stack: ExitStack, *arguments: str) -> None:
        self._stack = stack
        self._arguments = arguments
        self.backend = stack.enter_context(LineServer("a"))
        self.port = stack.enter_context(HeldPort())
        self.plane = stack.enter_context(DataPlane(arguments))
        self.put()
        self.flow = self.client()
        self.control = Control(self.plane.directory)

    def put(self) -> None:
        """Listen on the port."""
        self.plane.put_snapshot(
            {
                "web": {
                    "listen": self.port.address,
                    "backends": [self.backend.address],
                    "pool": {"mode": "off"},
                    "drain": {"timeout": "5m"},
                }
            }
        )

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

    def another(self, *arguments: str) -> DataPlane:
        """Return another data plane of the same name and directories, not started yet."""
        plane = DataPlane(arguments or self._arguments, runtime_dir=self.plane.runtime_dir)
        plane._environment["LB_STATE_DIR"] = str(self.plane.state_dir)
        self._stack.callback(plane.close)
        return plane

    def refused(self) -> bool:
        """Tell whether a new client is refused; one that is neither refused nor let in fails the test."""
        with socket.socket() as client:
            client.settimeout(5)
            return client.connect_ex((self.port.host, self.port.port)) == errno.ECONNREFUSED

    def draining(self, pid: int) -> dict[str, Any]:
        """Return the status of a process that drains."""
        status, body = unix_request(self.plane.runtime_dir / f"draining-test.{pid}.sock", "GET", "/v1/status")
        assert status == 200
        answer: dict[str, Any] = body
        return answer

    def status(self) -> dict[str, Any]:
        """Return what `lb-control status --json` prints."""
        told: dict[str, Any] = self.control("status", "--json").json()
        return told

    def end(self) -> DataPlane:
        """Have the data plane begin to drain, and wait until it has given its name away; return it."""
        self.plane.send_signal(signal.SIGTERM)
        self.plane.wait_draining()
        return self.plane


@pytest.fixture(params=[["--workers", "1"], ["--workers", "2"]], ids=["single", "supervisor"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A data plane of each kind."""
    with HeldPort() as metrics, ExitStack() as stack:
        yield Site(stack, *request.param, "--metrics", metrics.address)


def test_the_next_process_serves_while_the_former_one_drains(site: Site) -> None:
    """It has the name, the addresses, the metrics' address and what ran; the former one's flow goes on, and is shown."""
    former = site.end()
    site.plane = site.another().start()
    site.client().close()
    assert site.plane.get("/v1/info")["generation"] == 1
    site.ask(site.flow)
    shown = site.draining(former.pid)
    assert shown["pid"] == former.pid
    assert shown["draining_since"]
    assert shown["services"]["web"]["active"] == 1
    report = site.status()
    assert report["converged"]
    assert [(each["name"], each["pid"]) for each in report["dataplanes"]] == [("test", site.plane.pid)]
    assert [(each["pid"], each["connections"]) for each in report["draining"]] == [(former.pid, 1)]
    site.flow.close()
    assert former.wait() == 0
    assert {path.name for path in site.plane.runtime_dir.glob("d*")} == {
        "dataplane-test.sock",
        "dataplane-test.sock.lock",
    }
    assert site.plane.get("/readyz") == {"status": "ok"}


def test_a_process_that_drains_changes_nothing(site: Site) -> None:
    """What it is told to run is refused: it would take the addresses, and save over what its successor has saved."""
    former = site.end()
    report = site.status()
    assert (report["dataplanes"], [each["pid"] for each in report["draining"]]) == ([], [former.pid])
    assert site.control("ready").code == 1
    status, body = former.request("PUT", "/v1/snapshot", {"version": 1, "generation": 9, "services": {}})
    assert (status, body["code"]) == (503, "stopping")
    assert former.request("GET", "/readyz")[0] == 503


def test_a_former_process_that_was_killed_leaves_nothing_in_the_way(site: Site) -> None:
    """The next one removes its socket and its lock."""
    former = site.end()
    former.kill()
    site.another().start()
    assert not list(site.plane.runtime_dir.glob("draining-*"))


def test_a_second_signal_leaves_nothing_behind(site: Site) -> None:
    """What is left is cut, and no socket tells of a process that has ended."""
    former = site.end()
    former.send_signal(signal.SIGTERM)
    assert former.wait() == 1
    assert {path.name for path in former.runtime_dir.glob("d*")} == {"dataplane-test.sock.lock"}


def test_whoever_was_taken_over_is_shown_as_well(site: Site) -> None:
    """It has a socket of its own until its last flow has ended."""
    former = site.plane
    site.plane = site.another("--workers", "2", "--takeover").start()
    wait_for(lambda: '"draining"' in former.output, "the former process to move away")
    assert site.draining(former.pid)["services"]["web"]["active"] == 1
    site.flow.close()
    assert former.wait() == 0
    assert not list(site.plane.runtime_dir.glob("draining-*"))


def test_a_client_in_the_queue_is_served_before_the_name_is_free(site: Site) -> None:
    """Whoever had connected before is the former process's, and is not reset."""
    pids = {site.plane.pid, *(worker["pid"] for worker in site.plane.status()["workers"])}
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    waiting = [dial(site.port.address) for _ in range(5)]
    site.plane.send_signal(signal.SIGTERM)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: '"draining"' in site.plane.output, "the name to be free")
    for client in waiting:
        with client:
            site.ask(client)


def test_the_daemon_sees_one_leave_and_the_next_come(site: Site) -> None:
    """It shows the former process as draining, and converges with the next one at once."""
    with Daemon(site.control):
        former = site.end()
        site.plane = site.another().start()
        site.control.wait_status(
            lambda now: (
                now["converged"]
                and [each["pid"] for each in now["dataplanes"]] == [site.plane.pid]
                and [each["pid"] for each in now["draining"]] == [former.pid]
            )
        )
        assert "draining" in site.control("status").out
        assert site.control("ready").code == 0
