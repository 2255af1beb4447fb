"""Nodes that see each other through a real Consul: who dies, leaves, has another's name; and what is left without Consul."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from controlplane.cluster.session import TTL_S
from controlplane.core.nodes import seconds_of
from tests.controlplane.operations.commands import Control, Daemon, document
from tests.support.backends import LineServer
from tests.support.clients import ask
from tests.support.consul import Agent, Cluster
from tests.support.dataplane import DataPlane, Metrics, unix_request
from tests.support.ports import HeldPort
from tests.support.wait import wait_for

pytestmark = [pytest.mark.needs("consul"), pytest.mark.timeout(180)]

KEY = "consul-kv:lb/edge"


class Node(Control):
    """One node: its commands, and what its lb.yaml takes from it."""

    def __init__(self, directory, agent: Agent, name: str, port: HeldPort) -> None:
        super().__init__(directory)
        self.agent = agent
        self.name = name
        self.port = port

    @property
    def environment(self) -> dict[str, str]:
        """With the agent's address and the node's variables."""
        return {
            **super().environment,
            "CONSUL_HTTP_ADDR": self.agent.address,
            "NODE_NAME": self.name,
            "NODE_PORT": str(self.port.port),
        }

    def nodes(self):
        """Return what `nodes --json` says here."""
        return self("nodes", "--json").json()

    def presences(self) -> dict[str, str]:
        """Return who is how, as it is seen from here; nobody, as long as the daemon does not answer."""
        return {each["name"]: each["presence"] for each in self.nodes().get("nodes", ())}

    def of(self, name: str):
        """Return what is seen of a node from here."""
        return next(each for each in self.nodes()["nodes"] if each["name"] == name)


@pytest.fixture
def make(tmp_path_factory):
    """Make nodes."""
    with ExitStack() as stack:

        def made(agent: Agent, name: str) -> Node:
            return Node(tmp_path_factory.mktemp("n"), agent, name, stack.enter_context(HeldPort()))

        yield made


@contextmanager
def running(node: Node, home: object = KEY, **constants: float) -> Iterator[Daemon]:
    """Run a node: its data plane and its daemon."""
    with (
        DataPlane(name=node.name, runtime_dir=node.runtime_dir),
        Daemon(node, home, constants=constants or None) as daemon,
    ):
        yield daemon


def edge(server: LineServer):
    """Write the lb.yaml of all nodes."""
    wanted = document("127.0.0.1:${NODE_PORT}", server.address, mode="sticky")
    return {**wanted, "cluster": {"name": "edge", "node": "${NODE_NAME}"}}


def test_three_nodes_on_three_servers(make):
    """Each sees all; one that is killed is gone when its session is, one that ends has left, and both come back."""
    with Cluster() as consul, LineServer("one") as server, ExitStack() as stack:
        agents = [*consul.servers[:2], consul.client]
        nodes = [make(agent, f"n{number}") for number, agent in enumerate(agents, 1)]
        one, two, three = nodes
        done = one("apply", one.write(edge(server)), "--to", KEY)
        assert done.code == 0, done.err
        daemons = [stack.enter_context(running(node)) for node in nodes]
        live = dict.fromkeys(("n1", "n2", "n3"), "live")
        for node in nodes:
            wait_for(lambda node=node: node.presences() == live, f"all nodes, seen from {node.name}")
            wait_for(lambda node=node: node.nodes()["converged"], f"all to be the same, from {node.name}")
            wait_for(lambda node=node: one.of(node.name)["record"]["ready"], f"{node.name} to be ready")
            assert ask(node.port.address).startswith(b"one:")
        records = [one.of(node.name)["record"] for node in nodes]
        assert len({each["content"] for each in records}) == 1
        assert len({each["table_hashes"]["web"] for each in records}) == 1
        assert {each["key"] for each in records} == {"lb/edge"}
        assert one("nodes").out.startswith(
            "cluster edge: 3 of 3 nodes live, seen from n1; all live ones run the same"
        )
        from_consul = two("nodes", "--of", KEY, "--json").json()
        assert (from_consul["live"], from_consul["converged"]) == (3, True)

        killed = time.time()
        daemons[2].kill()
        wait_for(lambda: one.presences()["n3"] == "gone", f"it to be gone, within {2 * TTL_S:g} s")
        assert seconds_of(one.of("n3")["since"]) >= killed - 1.0
        assert "n3: gone since" in one("nodes").out
        assert one.nodes()["converged"]
        assert ask(three.port.address).startswith(b"one:")
        daemons[1].stop()
        wait_for(
            lambda: one.presences() == {"n1": "live", "n2": "left", "n3": "gone"}, "who left to have left"
        )
        stack.enter_context(Daemon(three, KEY))
        stack.enter_context(Daemon(two, KEY))
        wait_for(lambda: one.presences() == live, "both to be back")


def test_two_with_one_name(make):
    """The second one says so, sees the others all the same, and has the name once the first one has left."""
    with Agent() as consul, LineServer("one") as server:
        one, two = make(consul, "n1"), make(consul, "n1")
        assert one("apply", one.write(edge(server)), "--to", KEY).code == 0
        with running(one) as first, running(two) as second:
            wait_for(lambda: one.presences() == {"n1": "live"}, "the first one")

            def row(node: Node):
                sources = node("status", "--json").json()["sources"]
                return next((each for each in sources if each["name"] == "consul-cluster"), {"state": None})

            def states():
                return sorted(str(row(each)["state"]) for each in (one, two))

            wait_for(lambda: states() == ["error", "ok"], "one of them to say it")
            winner_is_one = row(one)["state"] == "ok"
            loser, leaves = (two, first) if winner_is_one else (one, second)
            assert "the name n1 is taken" in row(loser)["last_error"]
            assert "the name n1 is taken" in loser("nodes").out
            assert loser.presences() == {"n1": "live"}
            assert ask(loser.port.address).startswith(b"one:")
            leaves.stop()
            wait_for(lambda: row(loser)["state"] == "ok", "it to have the name")
            assert loser.presences() == {"n1": "live"}


def test_consul_dies(make):
    """The last picture stays, with its age and the reason; nothing else changes, and the node is back with Consul."""
    with Agent() as consul, LineServer("one") as server:
        node, other = make(consul, "n1"), make(consul, "n2")
        node.write(edge(server))
        other.write(edge(server))
        with running(node, node.file) as daemon, running(other, other.file):
            wait_for(lambda: node.presences() == {"n1": "live", "n2": "live"}, "both")
            wait_for(lambda: node.nodes()["converged"], "both to run the same")
            generation = node("status", "--json").json()["generation"]
            consul.kill()
            wait_for(lambda: node.nodes()["error"], "the daemon to notice")
            report = node.nodes()
            assert "unreachable" in report["error"]
            assert node.presences() == {"n1": "live", "n2": "live"}
            age_s = report["age_s"]
            wait_for(lambda: node.nodes()["age_s"] > age_s + 1.0, "the picture to age")
            shown = node("nodes")
            assert shown.code == 0
            assert "this picture is" in shown.out
            assert ask(node.port.address).startswith(b"one:")
            status = node("status", "--json").json()
            assert (status["generation"], status["converged"]) == (generation, True)
            metrics = Metrics(unix_request(daemon.socket, "GET", "/metrics")[1])
            assert metrics.value("lb_cluster_picture_age_seconds", cluster="edge") > 0
            assert metrics.value("lb_cluster_nodes", cluster="edge", presence="live") == 2
            consul.start()  # for development, it remembers nothing
            wait_for(lambda: node.nodes()["error"] is None, "Consul again")
            wait_for(lambda: node.presences() == {"n1": "live", "n2": "live"}, "both again")
