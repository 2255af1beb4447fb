"""What can happen to a node of a cluster, and how long the router took to notice."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.support.cluster import KEY, Bed, Node, document
from tests.support.load import Load

TO: Final = ("--to", f"consul-kv:{KEY}")
QUICKLY: Final = ("--wait", "--settle", "1s", "--quiet", "1s")


@dataclass(frozen=True)
class Window:
    """When the router may have changed its mind: flows that were open then may be lost."""

    begun: float
    over: float


def more(load: Load, count: int = 300) -> None:
    """Wait until so many more clients have been served."""
    enough = load.report.succeeded + count
    load.wait_until(lambda now: now.succeeded >= enough, "more clients to be served")


def lose(bed: Bed, node: Node, change: Callable[[Node], object]) -> Window:
    """Have something happen to a node for which the router leaves it."""
    begun = time.monotonic()
    change(node)
    bed.wait_routed(*bed.others(node))
    return Window(begun, time.monotonic())


def find(bed: Bed, node: Node, change: Callable[[Node], object]) -> Window:
    """Have something happen to a node for which the router sends clients to all nodes again."""
    begun = time.monotonic()
    change(node)
    bed.wait_routed()
    return Window(begun, time.monotonic())


def start_again(node: Node) -> None:
    """Start the programs of a node; switch it on before, if it is off."""
    if not node.is_on:
        node.on()
    node.shut()
    node.boot()


def drain(bed: Bed, node: Node) -> Window:
    """Drain a node until it may be switched off."""
    with node.command("node", "drain", *QUICKLY) as command:
        window = lose(bed, node, lambda _: None)
        code = command.wait()
        assert code == 0, command.output
        assert "may be switched off" in command.output
    return window


def enable(bed: Bed, node: Node) -> Window:
    """Bring a node back."""
    return find(bed, node, lambda node: node.control("node", "enable"))


def upgrade(node: Node) -> None:
    """Replace what serves and what controls, as a package does."""
    for name in ("control", "dataplane"):
        node.programs[name].stop()
    for name in ("dataplane", "control"):
        node.programs[name].start()


def written(node: Node, **options: Any) -> str:
    """Write an lb.yaml on a node, and return where it is; see `document`."""
    file = "/run/lb.yaml"
    node.put(file, json.dumps(document(**options)))
    return file


def held(bed: Bed) -> Any:
    """Return what the key of all nodes holds."""
    return json.loads(bed.registry.raw(KEY) or b"null")


def limit(node: Node) -> int:
    """Return the limit of connections that a node's data plane runs: what tests change, for it changes nothing for clients."""
    status, body = node.dataplane("/v1/snapshot")
    assert status == 200, body
    found: int = body["services"]["web"]["limits"]["connections"]
    return found
