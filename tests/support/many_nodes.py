"""Three nodes on loopback that follow one key of a real Consul: each a daemon and a data plane, on an address of its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.controlplane.operations.commands import Control, Daemon
from tests.support.consul import Agent
from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort
from tests.support.prefork import command
from tests.support.process import Program
from tests.support.wait import wait_for

KEY: Final = "consul-kv:lb/edge"
TOKEN: Final = "of-the-nodes"  # noqa: S105 - of tests
OFTEN: Final = {
    "controlplane.core.record_pace._NUMBERS_S": 0.3,
    "controlplane.daemon.node_facts.NUMBERS_S": 0.2,
    "controlplane.cluster.publishing.LOOK_S": 0.2,
    "controlplane.cluster.publishing.LEAST_S": 0.1,
}
"""Nodes tell of themselves every second, and numbers every five. Tests wait for that."""


class Node(Control):
    """One node: its directories, its data plane and its daemon."""

    def __init__(self, directory: Path, agent: Agent, number: int, api: int) -> None:
        super().__init__(directory)
        directory.mkdir(parents=True)
        self.token = directory / "token"
        self.token.write_text(TOKEN)
        self.name = f"n{number}"
        self.ip = f"127.0.0.{number}"
        self._agent = agent
        self.plane = DataPlane(name="a", runtime_dir=self.runtime_dir)
        http = ("--http", f"{self.ip}:{api}", "--http-token-file", self.token)
        self.daemon = Daemon(self, KEY, *http, constants=OFTEN)

    @property
    def environment(self) -> dict[str, str]:
        """With what its daemon knows of the node."""
        return {
            **super().environment,
            "CONSUL_HTTP_ADDR": self._agent.address,
            "NODE_NAME": self.name,
            "NODE_IP": self.ip,
        }

    def generations(self) -> list[dict[str, Any]]:
        """Return what it has taken so far, the oldest first."""
        entries: list[dict[str, Any]] = self("history", "--json").json()
        return entries


class ManyNodes:
    """All of it.

    Args:
        directory: Short, for sockets are below it.
        agent: A Consul.
        count: How many nodes.
    """

    def __init__(self, directory: Path, agent: Agent, count: int = 3) -> None:
        self.agent = agent
        self.port = HeldPort()
        self.api = HeldPort()
        self.nodes = [
            Node(directory / str(number), agent, number, self.api.port) for number in range(1, count + 1)
        ]
        self.operator = Control(directory / "operator")
        self.operator.directory.mkdir(parents=True)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                self._stack.enter_context(node.plane)
                self._stack.enter_context(node.daemon)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self.port.release()
        self.api.release()

    def document(self, *backends: str, **more: Any) -> dict[str, Any]:
        """Return an lb.yaml that is the same on all nodes; nothing is checked, so that clients meet what is there."""
        web = {
            "listen": f"${{NODE_IP}}:{self.port.port}",
            "backends": list(backends),
            "health": {"active": {"type": "none"}, "passive": {"failures": 0}},
            "retries": 0,
            **more,
        }
        return {
            "version": 1,
            "consul": {"address": self.agent.address},
            "cluster": {
                "name": "edge",
                "node": "${NODE_NAME}",
                "address": f"http://${{NODE_IP}}:{self.api.port}",
            },
            "services": {"web": web},
        }

    def address(self, node: Node) -> str:
        """Return where a node serves."""
        return f"{node.ip}:{self.port.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Of an operator's commands."""
        return {**self.operator.environment, "CONSUL_HTTP_ADDR": self.agent.address}

    def command(self, *arguments: object, constants: dict[str, float] | None = None) -> Program:
        """Return a command that an operator has not started yet."""
        made = Program([command("lb-control"), *map(str, arguments)], environment=self.environment)
        made.constants |= constants or {}
        return made

    def applied(self, content: dict[str, Any], *arguments: object) -> Program:
        """Return an `apply` of a content to the key, which has not started yet."""
        return self.command("apply", self.operator.write(content), "--to", KEY, *arguments)

    def ends(self, made: Program) -> tuple[int, str]:
        """Run a command to its end; return its exit code and what it has said."""
        with made:
            wait_for(lambda: made.poll() is not None, "the command's end", every_s=0.05)
            return made.wait(), made.output

    def hashes(self) -> list[str]:
        """Return the hash of what each data plane runs."""
        return [str(node.plane.get("/v1/info")["hash"]) for node in self.nodes]

    def backends(self) -> list[Sequence[str]]:
        """Return the backends of each data plane."""
        found: list[Sequence[str]] = []
        for node in self.nodes:
            services = node.plane.get("/v1/snapshot")["services"]
            found.append([each["address"] for each in services["web"]["backends"]] if services else [])
        return found
