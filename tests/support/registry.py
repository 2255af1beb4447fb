"""Consul as a cluster has it: three servers on a network of their own, and a client agent on each node."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

from tests.support.machine import Machine, Service, switch
from tests.support.programs import require
from tests.support.wait import wait_for

NETWORK: Final = "10.66.0"
SWITCH: Final = "registry"
HTTP_PORT: Final = 8500
SERVERS: Final = 3


class ConsulAgent(Service):
    """A Consul agent on a machine.

    Args:
        machine: Where.
        name: Its node's name in Consul.
        address: Of its own, on the network of the servers.
        client_address: Where its HTTP API listens.
        servers: How many servers its cluster has, and it is one; 0: a client agent.
        join: Addresses of agents.
    """

    def __init__(
        self,
        machine: Machine,
        name: str,
        address: str,
        client_address: str,
        *,
        servers: int,
        join: Sequence[str],
    ) -> None:
        super().__init__(machine, [])
        self.name = name
        self.address = address
        self._client_address = client_address
        configuration = {
            "node_name": name,
            "bind_addr": address,
            "client_addr": client_address,
            "ports": {"http": HTTP_PORT, "dns": -1, "grpc": -1, "https": -1, "serf_wan": -1},
            "retry_join": list(join),
            "retry_interval": "500ms",
            "disable_update_check": True,
            "disable_host_node_id": True,
            "log_level": "WARN",
            "performance": {"raft_multiplier": 1},
            "limits": {"http_max_conns_per_client": 2000},
            **({"server": True, "bootstrap_expect": servers} if servers else {}),
        }
        file = self.directory / "consul.json"
        file.write_text(json.dumps(configuration))
        self.command = [
            *(require("consul"), "agent", f"-config-file={file}", f"-data-dir={self.directory / 'data'}")
        ]

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Make one HTTP call; status 0 if nobody answers."""
        connection = http.client.HTTPConnection(self._client_address, HTTP_PORT, timeout=10)
        try:
            with self.machine.entered():
                connection.connect()
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()

    def leader(self) -> str:
        """Return the address of the leader that it knows, without the port; empty if it knows none."""
        status, body = self.request("GET", "/v1/status/leader")
        return str(json.loads(body)).partition(":")[0] if status == http.client.OK else ""

    def close(self) -> None:
        """End it at once: in good order it would first leave its cluster, which takes seconds."""
        if self.machine.is_on and self.poll() is None and self._process is not None:
            self.kill()
        super().close()


class Registry:
    """The servers, on a machine with one address for each.

    Args:
        stack: Ends what is started here.
    """

    def __init__(self, stack: ExitStack) -> None:
        self.machine = stack.enter_context(Machine("registry"))
        switch(self.machine, SWITCH, f"{NETWORK}.1/24")
        addresses = [f"{NETWORK}.{2 + number}" for number in range(SERVERS)]
        self.machine.ip(*(f"address add {address}/24 dev {SWITCH}" for address in addresses))
        self.servers = [
            stack.enter_context(
                ConsulAgent(
                    self.machine,
                    f"server{number}",
                    address,
                    address,
                    servers=SERVERS,
                    join=addresses[:number],
                )
            )
            for number, address in enumerate(addresses)
        ]
        self.port = (self.machine, SWITCH)
        """What nodes are plugged into."""

    def agent(self, machine: Machine, address: str) -> ConsulAgent:
        """Return the agent of a node, not started."""
        join = [server.address for server in self.servers]
        return ConsulAgent(machine, machine.name, address, "127.0.0.1", servers=0, join=join)

    def _any(self) -> ConsulAgent:
        return next(server for server in self.servers if server.poll() is None)

    def wait_for_leader(self) -> None:
        """Wait until every server that runs follows one leader."""
        running = [server for server in self.servers if server.poll() is None]

        def agree() -> bool:
            named = {server.leader() for server in running}
            return len(named) == 1 and named <= {server.address for server in running}

        wait_for(agree, "a leader of Consul's servers", every_s=0.05)

    def leader(self) -> ConsulAgent:
        """Return the server that leads."""
        address = self._any().leader()
        return next(server for server in self.servers if server.address == address)

    def get(self, path: str) -> Any:
        """Return what a GET answers; None if there is nothing, or nobody who knows."""
        status, body = self._any().request("GET", path)
        return json.loads(body) if status == http.client.OK else None

    def put(self, key: str, value: bytes) -> None:
        """Write a key."""
        path = f"/v1/kv/{urllib.parse.quote(key)}"
        assert self._any().request("PUT", path, value) == (http.client.OK, b"true"), key

    def put_document(self, key: str, document: Mapping[str, Any]) -> None:
        """Write an lb.yaml to a key."""
        self.put(key, json.dumps(document, indent=1).encode())

    def raw(self, key: str) -> bytes | None:
        """Return what a key holds; None if there is none. While there is no leader, it waits for one."""
        found: list[tuple[int, bytes]] = []

        def told() -> bool:
            found[:] = [self._any().request("GET", f"/v1/kv/{urllib.parse.quote(key)}?raw")]
            return found[0][0] in (http.client.OK, http.client.NOT_FOUND)

        wait_for(told, f"what {key} holds", every_s=0.05)
        status, body = found[0]
        return body if status == http.client.OK else None
