"""Backends by name, with the system's own resolver: several addresses, and a name of our own."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.backends import LineServer
from tests.support.dataplane import DataPlane
from tests.support.namespaces import needs_namespaces, with_hosts
from tests.support.ports import HeldPort

pytestmark = [needs_namespaces]

HOSTS = """\
127.0.0.1 localhost
127.0.0.2 two.test
127.0.0.3 two.test
::1 both.test
127.0.0.1 both.test
127.0.0.1 own.test
"""
CHECK = {"active": {"type": "tcp", "interval": "100ms", "fall": 1}, "passive": {"failures": 0}}


@pytest.fixture(params=[1, 2])
def plane(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DataPlane]:
    """A data plane that knows these names, with one worker or with two."""
    hosts = tmp_path / "hosts"
    hosts.write_text(HOSTS)
    plane = DataPlane(["--workers", str(request.param)])
    plane.argv = with_hosts(plane.argv, hosts)
    with plane:
        yield plane


@pytest.fixture
def port() -> Iterator[HeldPort]:
    """The listener's port."""
    with HeldPort() as port:
        yield port


def served(port: HeldPort, count: int) -> list[str]:
    """Connect clients, one after the other, and return who answered each; nothing for one that was closed."""
    answers = []
    for _ in range(count):
        with socket.create_connection((port.host, port.port), timeout=10) as client:
            try:
                client.sendall(b"x\n")
                answers.append(client.recv(100).partition(b":")[0].decode())
            except ConnectionError:
                answers.append("")
    return answers


def is_up(status: dict) -> bool:
    """Tell whether the backend is up."""
    return bool(status["services"]["web"]["backends"][0]["health"]["state"] == "up")


def test_one_of_two_addresses_dies(plane, port):
    """A name with a server on each of two addresses: the first is killed, and nobody is refused."""
    with (
        LineServer("first", host="127.0.0.2") as first,
        LineServer("second", host="127.0.0.3", port=first.port),
    ):
        web = {"listen": port.address, "backends": [f"two.test:{first.port}"], "health": CHECK, "retries": 0}
        plane.put_snapshot({"web": web})
        plane.wait_status(is_up)
        assert set(served(port, 10)) == {"first"}
        first.kill()
        assert set(served(port, 50)) == {"second"}
        assert is_up(plane.status())
        backend = plane.status()["services"]["web"]["backends"][0]
        assert backend["totals"]["connect_failures"] == 0


def test_a_server_of_the_other_family(plane, port):
    """A name with an IPv6 and an IPv4 address, whose server listens on IPv4 only, serves everybody from the start."""
    with LineServer("v4") as server:
        health = {"active": {"type": "none"}, "passive": {"failures": 0}}
        web = {
            "listen": port.address,
            "backends": [f"both.test:{server.port}"],
            "health": health,
            "retries": 0,
        }
        plane.put_snapshot({"web": web})
        plane.wait_status(
            lambda status: (
                not status["services"]["web"]["backends"][0]["health"]["cause"].startswith("not resolved")
            )
        )
        assert set(served(port, 30)) == {"v4"}


@pytest.mark.parametrize("plane", [2], indirect=True)
def test_a_new_worker_knows_the_names(plane, port):
    """A worker that takes the place of a killed one is told where names are, before it takes clients."""
    with LineServer("v4") as server:
        web = {
            "listen": port.address,
            "backends": [f"both.test:{server.port}"],
            "health": CHECK,
            "retries": 0,
        }
        plane.put_snapshot({"web": web})
        plane.wait_status(is_up)
        before = {worker["pid"] for worker in plane.status()["workers"]}
        os.kill(min(before), signal.SIGKILL)
        plane.wait_status(
            lambda status: len(after := {each["pid"] for each in status["workers"]}) > 1 and after != before
        )
        assert set(served(port, 20)) == {"v4"}


def test_a_name_of_our_own(plane, port):
    """A name that leads back is called by nobody, clients are closed at once, and status says why."""
    web = {"listen": port.address, "backends": [f"own.test:{port.port}"], "health": CHECK}
    plane.put_snapshot({"web": web})
    status = plane.wait_status(
        lambda status: status["services"]["web"]["backends"][0]["health"]["state"] == "down"
    )
    (backend,) = status["services"]["web"]["backends"]
    assert f"{port.address} is where this service itself listens" in backend["health"]["cause"]
    assert served(port, 1) == [""]
    assert plane.status()["services"]["web"]["totals"]["connections"] == 1
    skipped = plane.get("/v1/explain?service=web&client=127.0.0.1")["skipped"]
    assert skipped == [{"id": f"own.test:{port.port}", "reason": "loop"}]
