"""Two nodes with one address that moves between them, by keepalived with the file of `deploy/`, under load.

The address moves with all its connections lost: the other node does not know them. Clients that come afterwards are served.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.deployed import keepalived, marking, serving
from tests.support.figures import print_table
from tests.support.load import Load
from tests.support.machine import Machine, Service, plug, switch
from tests.support.namespaces import needs_namespaces
from tests.support.wait import wait_for

pytestmark = [needs_namespaces, pytest.mark.needs("keepalived"), pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "192.0.2.10"
BACKEND = "10.88.0.101:7000"
RATE = 300.0
FLOWS = 30
ROWS: list[list[str]] = []
HEADS = [
    "what happened",
    "until the other has the address (s)",
    "flows lost",
    "clients that failed",
    "slowest that was served (s)",
]


class Node(Machine):
    """One of the two.

    Args:
        name: As keepalived's file calls it.
        number: The last part of its addresses.
        ports: What it is plugged into: the clients' switch, the backend's.
    """

    def __init__(
        self, name: str, number: int, ports: tuple[tuple[Machine, str], tuple[Machine, str]]
    ) -> None:
        super().__init__(name)
        self._number = number
        self._ports = ports
        self.inside = f"10.88.0.{number}"
        self._stack = ExitStack()

    def boot(self) -> None:
        """Switch it on, plug it in, and start what runs on it."""
        self.on()
        plug(self, "eth0", f"192.0.2.{self._number}/24", self._ports[0])
        plug(self, "eth1", f"{self.inside}/24", self._ports[1])
        lb_yaml = {
            "version": 1,
            "services": {"web": {"listen": "0.0.0.0:80", "backends": [BACKEND], "drain": {"timeout": "2s"}}},
        }
        self._stack.enter_context(serving(self, json.dumps(lb_yaml)))
        self._stack.enter_context(marking(self, "--timeout", "20s", "--hold", "30s"))
        self._stack.enter_context(keepalived(self, self.name))

    def off(self) -> None:
        """Cut its power."""
        super().off()
        self._stack.close()

    def has_address(self) -> bool:
        """Tell whether the shared address is here."""
        return f"{ADDRESS}/24" in self.run("ip", "address", "show", "dev", "eth0")


class Pair:
    """The two nodes, their clients and their backend."""

    def __init__(self, stack: ExitStack) -> None:
        self.clients = stack.enter_context(Machine("clients"))
        inside = stack.enter_context(Machine("inside"))
        switch(self.clients, "edge", "192.0.2.100/24")
        switch(inside, "inside", "10.88.0.101/24")
        backend = [sys.executable, "-m", "tests.support.line_backends", f"b1={BACKEND}"]
        stack.enter_context(Service(inside, backend, environment={"PYTHONPATH": str(ROOT)})).wait_output(
            "serving"
        )
        ports = ((self.clients, "edge"), (inside, "inside"))
        self.one, self.two = Node("one", 11, ports), Node("two", 12, ports)
        for node in (self.one, self.two):
            stack.callback(node.off)
            node.boot()
        self.wait(self.one)

    def wait(self, node: Node) -> None:
        """Wait until a node has the address, and no other."""
        others = [each for each in (self.one, self.two) if each is not node and each.is_on]
        wait_for(
            lambda: node.has_address() and not any(other.has_address() for other in others),
            f"the address on node {node.name}",
            deadline_s=120,
            every_s=0.05,
        )

    def load(self) -> Load:
        """Return clients of the shared address."""
        return Load(f"{ADDRESS}:80", rate=RATE, flows=FLOWS, interval_s=0.5, network=self.clients.entered)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """The first node has the address; each test leaves it so."""
    ROWS.clear()
    with ExitStack() as stack:
        yield Pair(stack)
    print_table("shared-address", f"An address moves by VRRP, at {RATE:g} connections/s", HEADS, ROWS)


def move(pair: Pair, what: str, change: Callable[[], object], to: Node) -> None:
    """Have something happen under load, and hold that no client fails that came when the address was where it has to be."""
    with pair.load() as load:
        load.wait_flows()
        load.wait_progress(100)
        begun = time.monotonic()
        change()
        pair.wait(to)
        over = time.monotonic()
        enough = load.report.succeeded + 300
        load.wait_until(lambda now: now.succeeded >= enough, "clients of the other node")
    clients = [visit for visit in load.report.visits if not visit.is_flow]
    late = [visit for visit in clients if visit.begun >= over]
    flows = [visit for visit in load.report.visits if visit.is_flow]
    assert [visit for visit in late if visit.failure] == []
    assert {visit.answered_by.partition("@")[2] for visit in late} == {to.inside}
    assert [
        visit for visit in clients if visit.failure and visit.ended is not None and visit.ended < begun
    ] == []
    slowest = max((visit.ended or over) - visit.begun for visit in clients if not visit.failure)
    failed = sum(bool(visit.failure) for visit in clients)
    between = sum(begun <= visit.begun < over for visit in clients)
    lost = sum(bool(visit.failure) for visit in flows)
    ROWS.append(
        [
            what,
            f"{over - begun:.1f}",
            f"{lost} of {FLOWS}",
            f"{failed} of {between} meanwhile",
            f"{slowest:.1f}",
        ]
    )


def test_power_cut(pair):
    """A node that falls silent loses the address, and has it again when it is back."""
    move(pair, "power cut", pair.one.off, pair.two)
    move(pair, "the first node is back", pair.one.boot, pair.one)


def test_drained(pair):
    """A node that is drained gives the address away before it is not ready, and takes it when it is enabled."""
    drain = ("/usr/bin/lb-control", "node", "drain", "--settle", "3s", "--quiet", "1s", "--wait")
    with Service(pair.one, drain) as command:
        move(pair, "drained", lambda: None, pair.two)
        assert command.wait() == 0, command.output
    move(pair, "enabled", lambda: pair.one.run("/usr/bin/lb-control", "node", "enable"), pair.one)
