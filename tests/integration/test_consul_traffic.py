"""Consul, a control plane and a data plane under load: whatever happens to Consul, no connection notices."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.support.backends import LineServer
from tests.support.consul import Agent, Cluster
from tests.support.dataplane import DataPlane, command, unix_request
from tests.support.load import Load
from tests.support.ports import HeldPort
from tests.support.process import Program, answers
from tests.support.wait import wait_for

pytestmark = [pytest.mark.needs("consul"), pytest.mark.timeout(120)]


class Balancer:
    """A data plane and its daemon, which discovers `web` in Consul.

    Args:
        consul: The agent to ask.
        port: Of the listener.
        workers: Of the data plane; 0: it is a single process.
        options: Of the service.
    """

    def __init__(
        self, consul: Agent, port: int, stack: ExitStack, *, workers: int = 0, **options: Any
    ) -> None:
        self.address = f"127.0.0.1:{port}"
        self.plane = stack.enter_context(DataPlane(["--workers", str(workers)] if workers else []))
        self.control = Program([])
        self.control._environment |= {
            "LB_RUNTIME_DIR": str(self.plane.runtime_dir),
            "LB_STATE_DIR": str(self.control.directory / "state"),
        }
        file = self.control.directory / "lb.yaml"
        service = {"listen": self.address, "discover": {"consul": {"service": "web"}}, **options}
        file.write_text(
            json.dumps({"version": 1, "services": {"web": service}, "consul": {"address": consul.address}})
        )
        self.control.argv = [command("lb-control"), "run", str(file)]
        stack.enter_context(self.control)
        wait_for(lambda: answers(self.address), "the listener", deadline_s=15)

    def backends(self) -> list[str]:
        """Return the ids of the backends that the data plane runs."""
        services: dict[str, Any] = self.plane.get("/v1/snapshot")["services"]
        return sorted(backend["id"] for service in services.values() for backend in service["backends"])

    def wait_for(self, *ids: str) -> None:
        """Wait until the data plane has exactly these backends."""
        wait_for(lambda: self.backends() == sorted(ids), f"{sorted(ids)}")

    def source(self) -> dict[str, Any]:
        """Return what the daemon's status says of Consul."""
        _, status = unix_request(self.plane.runtime_dir / "control.sock", "GET", "/v1/status")
        return next(row for row in status["sources"] if row["name"].startswith("consul"))

    def wait_for_state(self, *states: str) -> None:
        """Wait until the source is in one of these states."""
        wait_for(lambda: self.source()["state"] in states, f"one of {states}, it is {self.source()}")


def register(agent: Agent, name: str, server: LineServer) -> None:
    """Register a server as an instance of `web`."""
    asyncio.run(agent.register(name, server.port))


@contextmanager
def servers(count: int) -> Iterator[list[LineServer]]:
    """Run some servers that answer lines with their names."""
    with ExitStack() as stack:
        yield [stack.enter_context(LineServer(f"s{number}")) for number in range(count)]


FOUR = ["dev/s0", "dev/s1", "dev/s2", "dev/s3"]


@contextmanager
def balanced(agent: Agent, *, asked: Agent | None = None) -> Iterator[tuple[Balancer, list[LineServer]]]:
    """Run four servers that are registered with an agent, and a balancer that asks it, or another one."""
    with servers(4) as found, HeldPort() as held, ExitStack() as stack:
        for number, server in enumerate(found):
            register(agent, f"s{number}", server)
        balancer = Balancer(asked or agent, held.port, stack)
        yield balancer, found


def test_churn_under_load():
    """Twenty registrations, each taken back, reach the data plane under load and fail no connection."""
    with Agent() as agent, balanced(agent) as (balancer, _), LineServer("extra") as extra:
        balancer.wait_for(*FOUR)
        with Load(balancer.address, rate=100, flows=5) as load:
            load.wait_flows()
            for number in range(20):
                name = f"extra{number}"  # as a rollout does: nobody returns under an old name
                asyncio.run(agent.register(name, extra.port))
                balancer.wait_for(*FOUR, f"dev/{name}")
                load.wait_progress(5)
                asyncio.run(agent.deregister(name))
                balancer.wait_for(*FOUR)
        assert load.report.failed == 0, load.report
        assert "extra" in load.report.answered_by


def test_agent_lost_under_load():
    """An agent that freezes, dies and returns empty fails no connection, and takes no backend away."""
    with Agent() as agent, balanced(agent) as (balancer, found):
        balancer.wait_for(*FOUR)
        with Load(balancer.address, rate=100, flows=5) as load:
            load.wait_flows()
            agent.send_signal(signal.SIGSTOP)
            load.wait_progress(50)
            agent.send_signal(signal.SIGCONT)
            agent.kill()
            balancer.wait_for_state("stale")
            load.wait_progress(50)
            assert balancer.backends() == FOUR
            agent.start()
            balancer.wait_for_state("held")
            load.wait_progress(50)
            assert balancer.backends() == FOUR
            for number, server in enumerate(found):
                register(agent, f"s{number}", server)
                assert balancer.backends() == FOUR
            balancer.wait_for_state("ok")
            load.wait_progress(20)
        assert load.report.failed == 0, load.report
        assert balancer.backends() == FOUR


def test_servers_lost_under_load():
    """Consul's servers that lose their leader, and then all that they know, fail no connection."""
    with Cluster() as cluster, balanced(cluster.client, asked=cluster.servers[0]) as (balancer, _):
        four = [f"client/s{number}" for number in range(4)]
        balancer.wait_for(*four)
        with Load(balancer.address, rate=100, flows=5) as load:
            load.wait_flows()
            leader = cluster.leader()
            leader.kill()
            load.wait_progress(100)
            leader.start()
            cluster.client.send_signal(signal.SIGSTOP)  # else it may register again before anybody has looked
            for agent in cluster.servers:
                agent.kill()
                agent.wipe()
            load.wait_progress(50)
            for agent in cluster.servers:
                agent.start()
            balancer.wait_for_state("held")
            load.wait_progress(50)
            assert balancer.backends() == four
        assert load.report.failed == 0, load.report


def test_control_plane_restarts_while_consul_is_gone():
    """A daemon that starts without Consul begins with what its predecessor knew."""
    with Agent() as agent, balanced(agent) as (balancer, _):
        balancer.wait_for(*FOUR)
        with Load(balancer.address, rate=50, flows=2) as load:
            load.wait_flows()
            agent.kill()
            balancer.control.stop()
            balancer.control.start()
            wait_for(lambda: answers(balancer.plane.runtime_dir / "control.sock"), "the daemon")
            balancer.wait_for_state("stale")
            load.wait_progress(20)
            assert balancer.backends() == FOUR
        assert load.report.failed == 0, load.report


class Talk:
    """A connection through the balancer to a server that answers lines, kept open."""

    def __init__(self, address: str) -> None:
        host, _, port = address.partition(":")
        self.sock = socket.create_connection((host, int(port)), timeout=15)
        self._lines = self.sock.makefile("rb")

    def ask(self) -> bytes:
        """Say a line, and return the answer; empty if the connection is over."""
        try:
            self.sock.sendall(b"x\n")
            return self._lines.readline()
        except ConnectionError:
            return b""

    def close(self) -> None:
        """Leave."""
        self._lines.close()
        self.sock.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_server_registered_twice_loses_one_id(workers):
    """Of two ids of one server one is deregistered: its connections live on, while those of a server that goes are cut."""
    drain = {"timeout": "500ms", "close": "0s"}
    with ExitStack() as stack:
        agent, held = stack.enter_context(Agent()), stack.enter_context(HeldPort())
        stays, goes = (stack.enter_context(LineServer(name)) for name in ("stays", "goes"))
        register(agent, "a", stays)
        register(agent, "b", stays)
        register(agent, "c", goes)
        balancer = Balancer(agent, held.port, stack, workers=workers, drain=drain)
        balancer.wait_for("dev/a", "dev/c")
        talks: dict[bytes, Talk] = {}
        while len(talks) < 2:
            talk = Talk(balancer.address)
            stack.callback(talk.close)
            talks.setdefault(talk.ask().partition(b":")[0], talk)
        asyncio.run(agent.deregister("a"))
        balancer.wait_for("dev/b", "dev/c")
        asyncio.run(agent.deregister("c"))
        balancer.wait_for("dev/b")
        wait_for(
            lambda: talks[b"goes"].ask() == b"", "the end of the drain"
        )  # 0.5 s after the one of `a` had ended
        assert talks[b"stays"].ask().startswith(b"stays:")
        (backend,) = balancer.plane.get("/v1/status")["services"]["web"]["backends"]
        assert (backend["id"], backend["state"]) == ("dev/b", "enabled")
        assert backend["active"] >= 1
