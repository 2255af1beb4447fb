"""What clients met is the first thing that status says, whatever the states of backends are."""

from __future__ import annotations

import contextlib
import os

import pytest

from tests.controlplane.operations.commands import Control, Daemon, document
from tests.support.backends import LineServer
from tests.support.clients import ask, dial
from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort
from tests.support.wait import wait_for

NOBODY = "127.0.0.1:1"
UNJUDGED = {"active": {"type": "none"}, "passive": {"failures": 0}}


@pytest.fixture
def control(tmp_path_factory) -> Control:
    """Commands in directories of their own."""
    return Control(tmp_path_factory.mktemp("d"))


def refused(address):
    """Connect, and be closed without a byte."""
    with dial(address) as client:
        assert client.recv(1) == b""


def told(control):
    """Return what `status` prints, on one line: it breaks long ones."""
    return " ".join(control("status").out.split())


@pytest.mark.parametrize("workers", ["1", "2"])
def test_refused_clients_are_named_first(control, workers):
    """All backends are `unknown` and so usable; each client is refused all the same, in whichever worker."""
    with (
        HeldPort() as port,
        HeldPort() as good,
        LineServer("one") as one,
        DataPlane(["--workers", workers], name="a", runtime_dir=control.runtime_dir) as plane,
        contextlib.ExitStack() as stack,
    ):
        content = document(port.address, NOBODY, health=UNJUDGED)
        content["services"]["good"] = document(good.address, one.address)["services"]["web"]
        control.write(content)
        assert control("apply", control.file).code == 0
        assert "nothing needs attention" in control("status").out
        for _ in range(20):
            refused(port.address)
            ask(good.address)
        for direct in (True, False):
            if not direct:
                stack.enter_context(Daemon(control, control.file))
                control.wait_status(lambda status: status["converged"])
            shown = told(control)
            said = "web: 20 of 20 clients in the last minute were refused: connect_failed"
            assert "nothing needs attention" not in shown
            assert f"NOT SERVED {said}; try the backends by hand" in shown
            assert "$ nc -zvw 3 127.0.0.1 1" in shown
            assert "good: " not in shown
            services = control("status", "--json").json()["services"]
            assert services["web"]["recent"]["refused"] == {"connect_failed": 20}
            assert services["good"]["recent"]["connections"] == 20
        if workers == "2":  # the numbers of a worker that has gone are no news
            assert control("restart").code == 0
            wait_for(
                lambda: sum(plane.status()["services"]["web"]["totals"]["closed"].values()) == 20,
                "the totals",
            )


class WithoutPorts(DataPlane):
    """A data plane on a machine whose local ports are all taken."""

    def __init__(self, **more):
        super().__init__(**more)
        none = (
            "ip link set lo up && cd /proc/sys/net/ipv4 && echo 40000 40000 >ip_local_port_range"
            ' && echo 40000 >ip_local_reserved_ports && cd / && exec "$@"'
        )
        self.argv = ["unshare", "--net", "sh", "-c", none, "sh", *self.argv]


@pytest.mark.needs("unshare", "ip")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a network namespace")
def test_a_machine_without_local_ports(control):
    """The backends are not to blame, and none is down: clients are closed with local_error, and status says so."""
    with WithoutPorts(name="a", runtime_dir=control.runtime_dir) as plane:
        front = f"unix:{plane.directory}/front.sock"
        assert control("apply", control.write(document(front, "127.0.0.1:80"))).code == 0
        refused(front)
        shown = told(control)
        assert "web: 1 of 1 clients in the last minute were refused: local_error" in shown
        assert "$ ss -s; sysctl net.ipv4.ip_local_port_range" in shown
        assert plane.backend("web", "127.0.0.1:80")["health"]["state"] in {"up", "unknown"}
