"""The end of a process that relays: nothing more is accepted, and connections have until their drain timeout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataplane.core.reasons import CloseReason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dataplane.net.flow import Flow
    from dataplane.node.node import Node

__all__ = ["connections", "drain_node", "undrain"]


def connections(node: Node) -> int:
    """Return how many clients there are."""
    return sum(len(one.service.flows) for one in [*node.running.values(), *node.leaving.values()])


def undrain(flows: Iterable[Flow]) -> None:
    """Take last deadlines back."""
    for flow in flows:
        if flow.deadline:
            flow.deadline = 0.0
            flow.service.deadlines.schedule(flow)


async def drain_node(node: Node) -> None:
    """Wait until the last connection has ended, by itself or at its drain timeout; nobody accepts any more."""
    for running in [*node.running.values(), *node.leaving.values()]:
        service = running.service
        service.draining = True
        for backend in service.backends.values():
            backend.usable = backend.usable and bool(service.flows)
        node.drain(service.flows, service, CloseReason.SHUTDOWN)
    while connections(node):
        node.idle.clear()
        await node.idle.wait()
