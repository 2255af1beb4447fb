"""What the kernel's next-hop groups, plain and resilient, do to the flows of other nodes when one node leaves or returns.

Each case opens flows through a router to nodes that have one address together, changes the group, and asks every flow
whether it is alive. A flow whose node is gone is lost anyway; these tests count the others.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Self

import pytest

from tests.support.backends import LineServer
from tests.support.figures import print_table
from tests.support.machine import Machine, plug, switch
from tests.support.namespaces import needs_namespaces

pytestmark = [needs_namespaces]

ADDRESS: Final = "10.50.0.1"
PORT: Final = 9000
FLOWS: Final = 300
BUCKETS: Final = 256
QUIET_S: Final = 3600
"""After how long without a packet a resilient group may give a bucket to another node: no flow here is that quiet."""
GROUP: Final = 1000


class Fabric:
    """A router, nodes that have one address together, and clients beyond the router.

    Args:
        nodes: How many.
    """

    def __init__(self, nodes: int) -> None:
        self.members = tuple(range(1, nodes + 1))
        self._stack = ExitStack()
        self._router = Machine("router")
        self.clients = Machine("clients")

    def __enter__(self) -> Self:
        with self._stack as stack:
            for machine in (self._router, self.clients):
                stack.enter_context(machine)
            self._router.set(ipv4__ip_forward=1, ipv4__fib_multipath_hash_policy=1)
            switch(self._router, "edge", "10.77.0.1/24")
            switch(self._router, "outside", "10.99.0.1/24")
            plug(self.clients, "eth0", "10.99.0.2/24", (self._router, "outside"))
            self.clients.ip("route add default via 10.99.0.1")
            for member in self.members:
                self._add_node(member)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _add_node(self, member: int) -> None:
        node = self._stack.enter_context(Machine(f"node{member}"))
        plug(node, "eth0", f"10.77.0.{10 + member}/24", (self._router, "edge"))
        node.ip("route add default via 10.77.0.1", f"address add {ADDRESS}/32 dev lo")
        with node.entered():
            self._stack.enter_context(LineServer(node.name, host=ADDRESS, port=PORT))
        self._router.ip(f"nexthop add id {member} via 10.77.0.{10 + member} dev edge")

    def plain(self, members: tuple[int, ...]) -> None:
        """Route to these nodes as BIRD has the kernel do it."""
        hops = " ".join(f"nexthop via 10.77.0.{10 + member}" for member in members)
        self._router.ip(f"route replace {ADDRESS}/32 {hops}")

    def resilient(self, members: tuple[int, ...]) -> None:
        """Route to these nodes by a resilient group."""
        group = "/".join(map(str, members))
        times = f"idle_timer {QUIET_S} unbalanced_timer 0"
        self._router.ip(
            f"nexthop replace id {GROUP} group {group} type resilient buckets {BUCKETS} {times}",
            f"route replace {ADDRESS}/32 nhid {GROUP}",
        )


class Flows:
    """Connections that are open, each to the node that answered first."""

    def __init__(self, clients: Machine, stack: ExitStack) -> None:
        with clients.entered():
            self._sockets = [
                stack.enter_context(socket.create_connection((ADDRESS, PORT), timeout=30))
                for _ in range(FLOWS)
            ]
        self.nodes = [self._ask(each) for each in self._sockets]

    @staticmethod
    def _ask(sock: socket.socket) -> str | None:
        """Return who answers, None if the flow is lost."""
        try:
            sock.sendall(b"?\n")
            return sock.recv(100).partition(b":")[0].decode() or None
        except ConnectionResetError:  # from a node that has never heard of it
            return None

    def lost(self) -> Counter[str]:
        """Ask all; return how many are lost, by the node that they were with."""
        return Counter(
            node
            for node, sock in zip(self.nodes, self._sockets, strict=True)
            if node and self._ask(sock) is None
        )


@dataclass(frozen=True)
class Case:
    """One change of a group, and what it cost."""

    what: str
    kind: str
    nodes: int
    gone: int
    """Flows of the node that left."""
    others: int
    """Flows of nodes that stayed, and that are lost all the same."""


CASES: Final[list[Case]] = []


@pytest.fixture(scope="module", params=[3, 8], ids=["three", "eight"])
def fabric(request: pytest.FixtureRequest) -> Iterator[Fabric]:
    """Nodes behind a router."""
    with Fabric(request.param) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def printed() -> Iterator[None]:
    """Print all figures at the end."""
    CASES.clear()
    yield
    rows = [
        [
            str(case.nodes),
            case.what,
            case.kind,
            f"{100 * case.gone / FLOWS:.1f}",
            f"{100 * case.others / FLOWS:.1f}",
        ]
        for case in sorted(CASES, key=lambda case: (case.nodes, case.what, case.kind))
    ]
    print_table(
        "ecmp",
        f"Flows lost when a next-hop group changes, in % of {FLOWS} flows",
        ["nodes", "what happens", "group", "flows of the node that leaves", "flows of other nodes"],
        rows,
    )


def cost(fabric: Fabric, what: str, kind: str, before: tuple[int, ...], after: tuple[int, ...]) -> Case:
    """Open flows to nodes, change who is in the group, and count what is lost."""
    route = getattr(fabric, kind)
    route(before)
    with ExitStack() as stack:
        flows = Flows(fabric.clients, stack)
        opened = Counter(flows.nodes)
        assert set(opened) == {f"node{member}" for member in before}
        route(after)
        lost = flows.lost()
    leaving = {f"node{member}" for member in set(before) - set(after)}
    gone = sum(lost[name] for name in leaving)
    assert gone == sum(opened[name] for name in leaving)
    case = Case(what, kind, len(fabric.members), gone, lost.total() - gone)
    CASES.append(case)
    return case


def without(fabric: Fabric, member: int) -> tuple[int, ...]:
    """Return all nodes but one."""
    return tuple(each for each in fabric.members if each != member)


def test_plain_loses_flows_of_nodes_that_stay(fabric):
    """A plain group divides the hashes anew among those that are left: the first one's leaving moves others' flows."""
    assert cost(fabric, "the first leaves", "plain", fabric.members, without(fabric, 1)).others > 0


def test_plain_loses_none_at_the_middle_of_three(fabric):
    """Where the middle of an odd number leaves, its two neighbours grow by its flows, and keep their own: chance, no rule."""
    middle = fabric.members[len(fabric.members) // 2]
    case = cost(fabric, "one in the middle leaves", "plain", fabric.members, without(fabric, middle))
    assert (case.others == 0) == (len(fabric.members) == 3)


def test_plain_loses_flows_when_a_node_returns(fabric):
    """A plain group gives the node that returns flows that others have."""
    assert cost(fabric, "the first returns", "plain", without(fabric, 1), fabric.members).others > 0


@pytest.mark.parametrize(("position", "what"), [(0, "the first leaves"), (1, "one in the middle leaves")])
def test_resilient_loses_only_the_flows_of_the_node_that_leaves(fabric, position, what):
    """A resilient group gives the buckets of the node that leaves to others, and leaves theirs alone."""
    leaving = fabric.members[position * len(fabric.members) // 2]
    assert cost(fabric, what, "resilient", fabric.members, without(fabric, leaving)).others == 0


def test_resilient_loses_nothing_when_a_node_returns(fabric):
    """A resilient group gives the node that returns buckets that have been idle, and no flow that talks loses its own."""
    assert cost(fabric, "the first returns", "resilient", without(fabric, 1), fabric.members).others == 0
