"""Real Consul agents on loopback: one for development, or servers with a client agent."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.ports import HeldPort
from tests.support.process import Program
from tests.support.programs import require
from tests.support.wait import wait_for

# What a loopback needs: an agent that dies is noticed within a second instead of five.
_QUICK_GOSSIP = {
    "probe_interval": "100ms",
    "probe_timeout": "50ms",
    "gossip_interval": "20ms",
    "suspicion_mult": 2,
}


def checked(service_id: str, port: int = 80, *, name: str = "web", **definition: Any) -> dict[str, Any]:
    """Return a service's registration: with a TTL check that passes unless the definition says otherwise."""
    definition.setdefault("Check", {"TTL": "10m", "Status": "passing"})
    return {"ID": service_id, "Name": name, "Address": "127.0.0.1", "Port": port, **definition}


class Agent(Program):
    """One agent.

    Args:
        name: Its node's name.
        server: How many servers its cluster has; 0: a client agent; None: an agent for development, alone.
        join: The agents to join.
        settings: More of its configuration.
        ports: More of its ports, by use.
    """

    def __init__(
        self,
        name: str = "dev",
        *,
        server: int | None = None,
        join: Sequence[Agent] = (),
        settings: Mapping[str, Any] | None = None,
        ports: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__([], stop_signal=signal.SIGINT)
        self.name = name
        self._held = {use: HeldPort() for use in ("http", "server", "serf_lan")}
        self.token = ""
        self._is_dev = server is None
        configuration = {
            "node_name": name,
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "ports": {
                **{use: held.port for use, held in self._held.items()},
                "dns": -1,
                "grpc": -1,
                "https": -1,
                "serf_wan": -1,
                **(ports or {}),
            },
            "retry_join": [f"127.0.0.1:{agent.serf_port}" for agent in join],
            "retry_interval": "200ms",
            "disable_update_check": True,
            "disable_host_node_id": True,
            "gossip_lan": _QUICK_GOSSIP,
            "performance": {"raft_multiplier": 1},
            "limits": {"http_max_conns_per_client": 2000},
            **({"server": True, "bootstrap_expect": server} if server else {}),
            **(settings or {}),
        }
        file = self.directory / "consul.json"
        file.write_text(json.dumps(configuration))
        mode = ["-dev"] if self._is_dev else [f"-data-dir={self.data}"]
        self.argv = [require("consul"), "agent", *mode, f"-config-file={file}"]

    @property
    def data(self) -> Path:
        """What it keeps on disk."""
        return self.directory / "data"

    @property
    def port(self) -> int:
        """Of its HTTP API."""
        return self._held["http"].port

    @property
    def server_port(self) -> int:
        """Where a server talks to servers."""
        return self._held["server"].port

    @property
    def serf_port(self) -> int:
        """Where others join it."""
        return self._held["serf_lan"].port

    @property
    def address(self) -> str:
        """Of its HTTP API."""
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> bool:
        """Tell whether it knows a leader; a server alone among several is ready when it answers."""
        try:
            status, body = self.request("GET", "/v1/status/leader")
        except OSError:
            return False
        return (status == 200 and body != "") or not self._is_dev

    def has_leader(self) -> bool:
        """Tell whether it can reach a leader."""
        status, body = self.request("GET", "/v1/status/leader")
        return status == 200 and str(body).startswith("127.")

    def wipe(self) -> None:
        """Forget everything on disk; it must not run."""
        shutil.rmtree(self.data, ignore_errors=True)

    def close(self) -> None:
        """End it and give its ports back."""
        try:
            if self.poll() is None and self._process is not None:
                self.send_signal(signal.SIGCONT)
                self.kill()  # in good order it would first leave its cluster, which takes seconds
            super().close()
        finally:
            for held in self._held.values():
                held.release()

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Make one HTTP call; the answer is decoded if it is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request(method, path, raw, {"X-Consul-Token": self.token} if self.token else {})
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        try:
            return response.status, json.loads(data)
        except ValueError:
            return response.status, data if path.startswith("/v1/snapshot") else data.decode(errors="replace")

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Make one HTTP call, without blocking the loop, that must succeed; returns what it answers."""
        status, answer = await asyncio.to_thread(self.request, method, path, body)
        assert status == 200, f"{method} {path}: {status} {answer}"
        return answer

    async def register(self, service_id: str, port: int = 80, **definition: Any) -> None:
        """Register a service instance, or change it."""
        await self.call("PUT", "/v1/agent/service/register", checked(service_id, port, **definition))

    async def deregister(self, service_id: str) -> None:
        """Deregister a service instance."""
        await self.call("PUT", f"/v1/agent/service/deregister/{service_id}")

    async def check(self, service_id: str, status: str) -> None:
        """Set the state of an instance's TTL check."""
        await self.call("PUT", f"/v1/agent/check/update/service:{service_id}", {"Status": status})

    async def maintain(self, service_id: str, *, on: bool) -> None:
        """Put a service instance into maintenance, or take it out."""
        await self.call("PUT", f"/v1/agent/service/maintenance/{service_id}?enable={str(on).lower()}")


class Cluster:
    """Three servers and a client agent."""

    def __init__(self) -> None:
        first = Agent("server0", server=3)
        self.servers = [first, *(Agent(f"server{number}", server=3, join=[first]) for number in (1, 2))]
        self.client = Agent("client", server=0, join=self.servers)

    def __enter__(self) -> Self:
        try:
            for agent in (*self.servers, self.client):
                agent.start()
            self.wait_for_leader()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for agent in (self.client, *self.servers):
            agent.close()

    def wait_for_leader(self) -> None:
        """Wait until every agent that runs reaches a leader."""
        running = [agent for agent in (*self.servers, self.client) if agent.poll() is None]
        wait_for(lambda: all(agent.has_leader() for agent in running), "a leader")

    def leader(self) -> Agent:
        """Return the server that leads."""
        _, address = self.client.request("GET", "/v1/status/leader")
        return next(agent for agent in self.servers if str(address).endswith(f":{agent.server_port}"))
