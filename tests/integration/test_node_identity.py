"""One lb.yaml for all nodes, with a real agent: what differs comes from it, is kept, and is named when nobody knows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from controlplane.store import Store
from tests.controlplane.operations.commands import Control, Daemon
from tests.support.backends import LineServer
from tests.support.clients import ask
from tests.support.consul import Agent
from tests.support.dataplane import DataPlane, unix_request
from tests.support.ports import HeldPort
from tests.support.wait import wait_for

pytestmark = [pytest.mark.needs("consul")]


class Node(Control):
    """Commands of one node, whose environment names the agent and more."""

    def __init__(self, directory: Path, agent: Agent) -> None:
        super().__init__(directory)
        self.more = {"CONSUL_HTTP_ADDR": agent.address}

    @property
    def environment(self) -> dict[str, str]:
        """With the agent's address."""
        return {**super().environment, **self.more}


@pytest.fixture
def ports() -> Iterator[tuple[HeldPort, HeldPort]]:
    """Two ports to listen on."""
    with HeldPort() as one, HeldPort() as other:
        yield one, other


def test_a_node_is_what_its_agent_says(tmp_path_factory, ports):
    """Also after both have started again without Consul; commands find with the file's lines what the daemon does not know."""
    web, later = (port.port for port in ports)
    directory = tmp_path_factory.mktemp("n")
    listen = [f"${{NODE_IP}}:{web}", {"unix": f"{directory}/${{NODE_NAME}}.sock"}]

    with (
        Agent("edge-7") as agent,
        LineServer("b") as backend,
        DataPlane(name="a", runtime_dir=directory / "run") as plane,
    ):
        node = Node(directory, agent)

        def write(listeners: list[object]) -> Path:
            service = {
                "listen": listeners,
                "backends": [backend.address],
                "health": {"active": {"type": "none"}},
            }
            return node.write({"version": 1, "services": {"web": service}})

        write(listen)
        with Daemon(node, node.file):
            node.wait_status(lambda status: status["converged"] and status["generation"] == 1)
            for place in (f"127.0.0.1:{web}", f"unix:{directory}/edge-7.sock"):
                assert ask(place, b"x\n") == b"b:x\n"
            assert node("plan", node.file).out == "no changes\n"
        agent.stop()

        state = Store(node.state_dir).load()
        assert state.document is not None
        assert state.document["services"]["web"]["listen"] == listen
        write([*listen, f"${{NODE_IP}}:{later}"])
        with Daemon(node, node.file):
            node.wait_status(lambda status: status["converged"] and status["generation"] == 2)
            assert ask(f"127.0.0.1:{later}", b"x\n") == b"b:x\n"
            write([*listen, "${NODE_RACK}:1"])
            status = node.wait_status(lambda status: status["config_error"])
            assert status["config_error"]["details"][0]["path"] == "services.web.listen[2]"
            done = node("apply", node.file)
            assert done.code == 2
            assert f"{node.file}:1:" in done.err
            assert (
                "services.web.listen[2]: has ${NODE_RACK}, which is not known: it is not set in the environment"
                in done.err
            )
        assert plane.status()["generation"] == 2


def test_a_command_alone_asks_the_agent(tmp_path_factory, ports):
    """As a daemon would; the environment is the newer word, and without either the file is refused."""
    directory = tmp_path_factory.mktemp("n")
    with Agent("edge-7") as agent, DataPlane(name="a", runtime_dir=directory / "run") as plane:
        node = Node(directory, agent)
        service = {"listen": f"${{NODE_IP}}:{ports[0].port}", "backends": []}
        node.write({"version": 1, "services": {"web": service}})
        assert node("apply", node.file).code == 0
        assert list(plane.get("/v1/snapshot")["services"]["web"]["listen"]) == [f"127.0.0.1:{ports[0].port}"]
        node.more["NODE_IP"] = "127.0.0.2"
        assert node("apply", node.file).code == 0
        assert list(plane.get("/v1/snapshot")["services"]["web"]["listen"]) == [f"127.0.0.2:{ports[0].port}"]
        agent.stop()
        del node.more["NODE_IP"]
        refused = node("apply", node.file)
        assert refused.code == 2
        assert "the Consul agent does not say it: unreachable" in refused.err


def test_a_file_is_checked_for_each_node_before_it_is_written_for_all(tmp_path_factory, ports):
    """A node that has not what it asks for is named, with the line, and nothing is written; each runs what it is for that node."""
    key = "consul-kv:lb/edge"
    with ExitStack() as stack:
        agent = stack.enter_context(Agent())
        nodes = {}
        for name, port in zip(("n1", "n2"), ports, strict=True):
            node = nodes[name] = Node(tmp_path_factory.mktemp(name), agent)
            node.more |= {"NODE_NAME": name, "NODE_WEB": str(port.port)}
            stack.enter_context(DataPlane(name="a", runtime_dir=node.runtime_dir))
        nodes["n1"].more["NODE_RACK"] = "r1"
        operator = Node(tmp_path_factory.mktemp("o"), agent)

        def write(*more: str) -> Path:
            web = {"listen": ["127.0.0.1:${NODE_WEB}", *more], "backends": []}
            cluster = {"name": "edge", "node": "${NODE_NAME}"}
            return operator.write({"version": 1, "cluster": cluster, "services": {"web": web}})

        assert operator("apply", write(), "--to", key).code == 0
        for node in nodes.values():
            stack.enter_context(Daemon(node, key))
        for node in nodes.values():
            node.wait_status(lambda status: status["converged"] and status["services"])
        told = partial(operator, "nodes", "--of", key, "--json")
        wait_for(
            lambda: (
                [list(each["record"]["uses"]) for each in told().json()["nodes"]]
                == [["NODE_NAME", "NODE_WEB"]] * 2
            ),
            "both to tell what they have",
        )
        for name, port in zip(nodes, ports, strict=True):
            _, snapshot = unix_request(nodes[name].runtime_dir / "control.sock", "GET", "/v1/snapshot")
            assert snapshot["services"]["web"]["listen"] == [f"127.0.0.1:{port.port}"]
        refused = operator("apply", write("unix:/tmp/${NODE_RACK}.sock"), "--to", key)
        assert refused.code == 2
        assert (
            "services.web.listen[1]: node n2: has ${NODE_RACK}, which is not known: the node has no such variable"
            in refused.err
        )
        assert operator("apply", write(), "--to", key).out == f"{key}: has this content already\n"
