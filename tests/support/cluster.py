"""A cluster on one machine: a router with BIRD, clients beyond it, three nodes with all that a node runs, Consul, and backends.

```text
 clients ─ 198.51.100.0/24 ─ router ─ 192.0.2.0/24 ┬ node1 ┬ 10.88.0.0/24 ─ backends
                          (BIRD, ECMP)             ├ node2 ┤
                                                   └ node3 ┴ 10.66.0.0/24 ─ three Consul servers
```

Each node has the service's address on its loopback, ExaBGP announces it, and the router divides clients among the nodes that do.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

from tests.support.dataplane import unix_request
from tests.support.load import Load
from tests.support.machine import Machine, Service, plug, switch
from tests.support.registry import NETWORK, Registry
from tests.support.routing import ROUTER, bird, exabgp, next_hops, wait_next_hops

KEY: Final = "lb/edge"
NAME: Final = "edge"
ADDRESS: Final = "203.0.113.10"
"""The service's, the same on every node."""
PORT: Final = 80
OWN_PORT: Final = 8080
"""Where a node serves on its own address, which no other has."""
BACKENDS: Final = {f"b{number}": f"10.88.0.{100 + number}:7000" for number in (1, 2)}
ROOT: Final = Path(__file__).resolve().parents[2]


def document(**options: Any) -> dict[str, Any]:
    """Write the lb.yaml of all nodes.

    Args:
        options: More of its service.
    """
    backends = [{"id": name, "address": address} for name, address in BACKENDS.items()]
    health = {"active": {"type": "tcp", "interval": "1s"}}
    listen = [f"{ADDRESS}:{PORT}", f"${{NODE_IP}}:{OWN_PORT}"]
    web = {"listen": listen, "backends": backends, "health": health, "drain": {"timeout": "2s"}}
    return {
        "version": 1,
        "cluster": {"name": NAME, "node": "${NODE_NAME}"},
        "services": {"web": web | options},
    }


class Node(Machine):
    """A node: its machine, and the programs on it.

    Args:
        number: 1, 2, 3.
        bed: Where it stands.
        workers: Of its data plane.
    """

    def __init__(self, number: int, bed: Bed, workers: int) -> None:
        super().__init__(f"node{number}")
        self.edge = f"192.0.2.{10 + number}"
        self.inside = f"10.88.0.{10 + number}"
        self._registry = f"{NETWORK}.{10 + number}"
        self._bed = bed
        self._workers = workers
        self._stack = ExitStack()
        self.programs: dict[str, Service] = {}

    @property
    def environment(self) -> dict[str, str]:
        """Of its programs."""
        return {
            "CONSUL_HTTP_ADDR": "http://127.0.0.1:8500",
            "NODE_IP": self.edge,
            "NODE_NAME": self.name,
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }

    def on(self) -> Self:
        """Switch it on, and plug it in; nothing runs yet."""
        super().on()
        self.set(ipv4__tcp_tw_reuse=1)
        plug(self, "eth0", f"{self.edge}/24", self._bed.edge_port)
        plug(self, "eth1", f"{self.inside}/24", self._bed.inside_port)
        plug(self, "eth2", f"{self._registry}/24", self._bed.registry.port)
        self.ip(f"route add default via {ROUTER}", f"address add {ADDRESS}/32 dev lo")
        return self

    def off(self) -> None:
        """Cut its power."""
        super().off()
        self.shut()

    def shut(self) -> None:
        """End its programs, those that run in good order."""
        self._stack.close()
        self.programs.clear()

    def boot(self) -> None:
        """Start its programs, the announcing one last; return before all are ready."""
        self._stack = ExitStack()
        environment = self.environment
        plane = ["/usr/bin/lb-dataplane", "--workers", str(self._workers)]
        daemon = ["/usr/bin/lb-control", "run", f"consul-kv:{KEY}"]
        programs = {
            "consul": self._bed.registry.agent(self, self._registry),
            "dataplane": Service(self, plane, environment=environment),
            "control": Service(self, daemon, environment=environment),
            "exabgp": exabgp(self, self.edge, self._bed.hold_s, environment),
        }
        for name, program in programs.items():
            self.start(name, program)

    def start(self, name: str, program: Service | None = None) -> None:
        """Start one of its programs, for the first time or again."""
        if program is not None:
            self.programs[name] = self._stack.enter_context(program)
        else:
            self.programs[name].start()

    def command(self, *arguments: str) -> Service:
        """Return an `lb-control` there, not started; it has ended when the block does."""
        return Service(self, ["/usr/bin/lb-control", *arguments], environment=self.environment)

    def control(self, *arguments: str) -> str:
        """Run an `lb-control` there that must succeed, and return what it prints."""
        with self.command(*arguments) as running:
            assert running.wait() == 0, running.output
            return running.output

    def daemon(self, path: str) -> tuple[int, Any]:
        """Return what its daemon answers to a GET."""
        return unix_request(self.path("/run/lb/control.sock"), "GET", path)

    def dataplane(self, path: str) -> tuple[int, Any]:
        """Return what its data plane answers to a GET."""
        return unix_request(self.path("/run/lb/dataplane-main.sock"), "GET", path)

    def link(self, interface: str, state: str) -> None:
        """Set a link `up` or `down`: `eth0` to the router, `eth1` to the backends, `eth2` to Consul."""
        self.ip(f"link set {interface} {state}")
        if interface == "eth0" and state == "up":
            self.ip(f"route replace default via {ROUTER}")  # it goes with the link


class Bed:
    """All of it, inside the block: switched on, following one lb.yaml, announced, and routed to.

    Args:
        workers: Of each data plane.
        hold_s: After how long of silence the router leaves a node.
    """

    def __init__(self, *, workers: int = 1, hold_s: int = 30) -> None:
        self._workers = workers
        self.hold_s = hold_s
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.registry = Registry(stack)
            self.router = stack.enter_context(Machine("router"))
            self.clients = stack.enter_context(Machine("clients"))
            self._inside = stack.enter_context(Machine("inside"))
            self._wire()
            names = [f"{name}={address}" for name, address in BACKENDS.items()]
            backends = Service(
                self._inside,
                [sys.executable, "-m", "tests.support.line_backends", *names],
                environment={"PYTHONPATH": str(ROOT)},
            )
            stack.enter_context(backends).wait_output("serving")
            self.nodes = [Node(number, self, self._workers) for number in (1, 2, 3)]
            stack.enter_context(bird(self.router, self.hold_s))
            self.registry.wait_for_leader()
            self.registry.put_document(KEY, document())
            for node in self.nodes:
                stack.enter_context(node).boot()
            self.wait_routed()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _wire(self) -> None:
        self.router.set(ipv4__ip_forward=1, ipv4__fib_multipath_hash_policy=1)
        switch(self.router, "edge", f"{ROUTER}/24")
        switch(self.router, "outside", "198.51.100.1/24")
        switch(self._inside, "inside", "10.88.0.1/24")
        self._inside.ip(
            *(f"address add {address.partition(':')[0]}/24 dev inside" for address in BACKENDS.values())
        )
        plug(self.clients, "eth0", "198.51.100.2/24", (self.router, "outside"))
        self.clients.ip("route add default via 198.51.100.1")
        self.edge_port = (self.router, "edge")
        self.inside_port = (self._inside, "inside")

    def wait_routed(self, *nodes: Node) -> None:
        """Wait until the router sends clients to exactly these nodes; none: to all."""
        wait_next_hops(self.router, f"{ADDRESS}/32", [node.edge for node in nodes or self.nodes])

    def others(self, node: Node) -> list[Node]:
        """Return all nodes but one."""
        return [each for each in self.nodes if each is not node]

    def middle(self) -> Node:
        """Return the node whose leaving moves no flow of another: the second of three next hops."""
        hop = next_hops(self.router, f"{ADDRESS}/32")[1]
        return next(node for node in self.nodes if node.edge == hop)

    def load(self, **options: Any) -> Load:
        """Return clients beyond the router; see `Load`. Long flows speak twice a second: often enough to find out that they are lost."""
        return Load(f"{ADDRESS}:{PORT}", network=self.clients.entered, interval_s=0.5, **options)

    def node_of(self, answered_by: str) -> Node:
        """Return the node that a client came by, from what answered it."""
        return next(node for node in self.nodes if node.inside == answered_by.partition("@")[2])
