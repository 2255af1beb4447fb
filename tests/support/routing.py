"""A router with BIRD, and what announces a node's address to it: ExaBGP."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from tests.support.machine import Machine, Service
from tests.support.programs import require
from tests.support.wait import wait_for

ROUTER_AS: Final = 65000
NODES_AS: Final = 65010
HOLD_S: Final = 6
"""After how long of silence a session is over: the shortest that BIRD and ExaBGP keep on a busy machine."""


class Bird(Service):
    """BIRD on a router.

    Args:
        machine: The router.
        configuration: A bird.conf.
    """

    def __init__(self, machine: Machine, configuration: str) -> None:
        super().__init__(machine, [])
        file = self.directory / "bird.conf"
        file.write_text(configuration)
        self._control = self.directory / "bird.ctl"
        self.command = [require("bird"), "-f", "-c", str(file), "-s", str(self._control)]

    def ready(self) -> bool:
        """Tell whether its control socket is there."""
        return self._control.exists()

    def ask(self, *words: str) -> str:
        """Return what `birdc` answers."""
        return self.machine.run(require("birdc"), "-s", str(self._control), *words)


def next_hops(router: Machine, prefix: str) -> list[str]:
    """Return the next hops of a prefix in a router's kernel, in the order in which they divide the hashes."""
    routes = json.loads(router.run("ip", "-json", "route", "show", prefix) or "[]")
    hops = [hop for route in routes for hop in route.get("nexthops", [route])]
    return [hop["gateway"] for hop in hops if "gateway" in hop]


def wait_next_hops(router: Machine, prefix: str, hops: Sequence[str]) -> None:
    """Wait until a router's kernel has exactly these next hops for a prefix."""
    wait_for(
        lambda: sorted(next_hops(router, prefix)) == sorted(hops),
        f"{prefix} to go by {', '.join(hops) or 'nobody'}",
        every_s=0.05,
    )


class ExaBgp(Service):
    """ExaBGP on a node.

    Args:
        machine: The node.
        configuration: An exabgp.conf.
        environment: For it and for the process that it runs.
    """

    def __init__(self, machine: Machine, configuration: str, environment: dict[str, str]) -> None:
        settings = {"exabgp.daemon.drop": "false", "exabgp.api.cli": "false", "exabgp.log.level": "WARNING"}
        assigned = [f"{name}={value}" for name, value in settings.items()]
        super().__init__(machine, [], environment=environment)
        file = self.directory / "exabgp.conf"
        file.write_text(configuration)
        self.command = ["env", *assigned, require("exabgp"), str(file)]


def bird_configuration(router: str, nodes: Sequence[str]) -> str:
    """Write a bird.conf of a router with an ECMP route to all nodes that announce the best path."""
    sessions = "\n".join(
        f"protocol bgp node{number} {{\n"
        f"    local {router} as {ROUTER_AS};\n"
        f"    neighbor {node} as {NODES_AS};\n"
        f"    hold time {HOLD_S};\n"
        "    connect retry time 1;\n    connect delay time 1;\n    error wait time 1, 2;\n"
        "    ipv4 { import all; export none; };\n"
        "}"
        for number, node in enumerate(nodes, 1)
    )
    return (
        f"router id {router};\nlog stderr all;\n"
        "protocol device { scan time 2; }\n"
        "protocol kernel { ipv4 { export all; }; merge paths on; }\n"
        f"{sessions}\n"
    )


def exabgp_configuration(node: str, router: str, command: str) -> str:
    """Write an exabgp.conf of a node whose routes a command announces."""
    return (
        f"process announce {{\n    run {command};\n    encoder text;\n}}\n"
        f"neighbor {router} {{\n    router-id {node};\n    local-address {node};\n"
        f"    local-as {NODES_AS};\n    peer-as {ROUTER_AS};\n    hold-time {HOLD_S};\n"
        "    family {\n        ipv4 unicast;\n    }\n"
        "    api {\n        processes [ announce ];\n    }\n}\n"
    )
