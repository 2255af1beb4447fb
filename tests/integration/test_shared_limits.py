"""Two nodes with a real agent share limits: each has its part, while both are there, and as it was while Consul is away."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.controlplane.operations.commands import Control, Daemon
from tests.support.backends import LineServer
from tests.support.clients import dial, say
from tests.support.consul import Agent
from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort
from tests.support.wait import wait_for

pytestmark = [pytest.mark.needs("consul")]

SOON = {"controlplane.core.share.HOLD_S": 0.2}
"""For how long a node that went counts."""


class Node(Control):
    """One of the nodes."""

    def __init__(self, directory: Path, name: str, agent: Agent) -> None:
        super().__init__(directory)
        self.name = name
        self.agent = agent

    @property
    def environment(self) -> dict[str, str]:
        """With its name, and the agent's address."""
        return {**super().environment, "NODE_NAME": self.name, "CONSUL_HTTP_ADDR": self.agent.address}

    def wait_share(self, nodes: int, here: int) -> None:
        """Wait until limits are divided so, and every data plane has its part."""

        def holds(status: dict) -> bool:
            share = status["share"]
            if not status["converged"] or share is None:
                return False
            limits = {"web": {"connections": {"limit": 8, "here": here}}}
            return bool(share == {"nodes": nodes, "limits": limits})

        self.wait_status(holds)


@pytest.fixture
def address() -> Iterator[str]:
    """An address to listen on."""
    with HeldPort() as port:
        yield port.address


def admitted(address: str) -> int:
    """Count how many clients are served at the same time."""
    with ExitStack() as stack:
        count = 0
        while say(stack.enter_context(dial(address))):
            count += 1
            assert count <= 8, "there is no limit"
        return count


def test_each_node_has_its_share(tmp_path_factory, address):
    """A second node halves it at once; when it has left, the first has the whole; Consul's absence changes nothing."""
    with ExitStack() as stack:
        agent = stack.enter_context(Agent())
        backend = stack.enter_context(LineServer("b"))
        one, two = (Node(tmp_path_factory.mktemp(name), name, agent) for name in ("n1", "n2"))
        for node in (one, two):
            stack.enter_context(DataPlane(["--reuseport"], name="a", runtime_dir=node.runtime_dir))
            web = {
                "listen": address if node is one else f"unix:{node.directory}/web.sock",
                "backends": [backend.address],
                "health": {"active": {"type": "none"}},
                "limits": {"connections": 8, "scope": "cluster"},
            }
            node.write(
                {"version": 1, "cluster": {"name": "edge", "node": "${NODE_NAME}"}, "services": {"web": web}}
            )
        first = stack.enter_context(contextlib.ExitStack())
        first.enter_context(Daemon(one, one.file, constants=SOON))
        one.wait_share(1, 8)
        with Daemon(two, two.file, constants=SOON):
            one.wait_share(2, 4)
            two.wait_share(2, 4)
            assert admitted(address) == 4
            assert "web connections" in one("status").out
            entry = one("history", "--json", "--limit", 1).json()[0]
            assert (entry["origin"], entry["by"]) == ("cluster", "2 nodes")
        one.wait_share(1, 8)
        with Daemon(two, two.file, constants=SOON):
            one.wait_share(2, 4)
            agent.stop()
            first.close()
        with Daemon(one, one.file, constants=SOON):
            one.wait_share(2, 4)
            wait_for(lambda: admitted(address) == 4, "this node's share")
