"""Which addresses need somebody who tells clients of several services apart, and who that is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from dataplane.net.listener import Entrance
from dataplane.net.router import Router
from dataplane.net.service import Service
from dataplane.node.node import Node

Addresses = Mapping[str, Sequence[str]]
"""What is listened on, each with the names of its services, in order: the first is whose the unrouted clients are."""


def arrange(node: Node, addresses: Addresses) -> None:
    """Have routers for those addresses that need one, with the services as they are now, and for no others."""
    routers = node.routers
    for address in [address for address in routers if address not in addresses]:
        del routers[address]  # it serves those who wait still
    for address, names in addresses.items():
        services = [node.running[name].service for name in names]
        router = routers.get(address)
        if len(services) == 1 and services[0].spec.match is None:
            if router is not None:
                del routers[address]
                router.configure(services)
                _count_at_listeners(node, router)
        elif router is None:
            router = routers[address] = Router(address, services)
            for listener in node.listeners.values():
                if listener.address == address:
                    router.accepted_for[listener.service.name] += listener.accepted
        else:
            router.configure(services)


def _count_at_listeners(node: Node, router: Router) -> None:
    """Let the listeners go on where the router's count for the one service that is left ends."""
    count = router.accepted_for[router.name]
    for listener in node.listeners.values():
        if listener.address == router.address:
            listener.accepted, count = count, 0


def behind(node: Node, address: str, name: str) -> tuple[Service, Entrance | None]:
    """Return what a listener is for: its service, the first of several by this `name`, and the router before it, if any."""
    router = node.routers.get(address)
    return node.running[name].service, None if router is None else router.accepted


def accepted(node: Node) -> Iterator[tuple[str, str, int, Literal["accepting", "paused"] | None]]:
    """Yield of each service at each address: its name, the address, the clients accepted for it, and how it listens.

    That is `accepting` or `paused`; None: no listener is there.
    """
    states: dict[str, Literal["accepting", "paused"]] = {}
    for listener in node.listeners.values():
        address = listener.address
        state: Literal["accepting", "paused"] = "paused" if listener.paused else "accepting"
        if states.get(address) != "paused":
            states[address] = state
        if address not in node.routers:
            yield listener.service.name, address, listener.accepted, state
    for address, router in node.routers.items():
        for service in router.services:
            yield service.name, address, router.accepted_for[service.name], states.get(address)
