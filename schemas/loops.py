"""Backends that lead back into the balancer: a connection to one of them would call the next one, for ever.

Theory of operation:

1. A backend's address *lands* at a listener if a connection to it is accepted there: the same address and port or
   the same Unix socket; or the listener is on every address of the port's family and the address is this machine's.
2. Loopback addresses are every machine's. Which others are this machine's only the machine knows: `Machine`.
3. An edge leads from a service to the one that its backend lands at. A chain of services is right. An edge that
   closes a circle, of one service or of many, is refused; so the graph of those that were taken never has one.

A host name lands nowhere: whoever resolves it asks for its addresses.
"""

from __future__ import annotations

import ipaddress
import posixpath
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, NamedTuple

_ANY_V4: Final = "0.0.0.0"
_ANY_V6: Final = "::"
_LOOPBACK: Final = {_ANY_V4: "127.0.0.1", _ANY_V6: "::1"}
"""Where Linux connects to when it is asked for the unspecified address."""


class Machine(NamedTuple):
    """What a machine knows of itself."""

    is_local: Callable[[str], bool]
    """Whether an IP address, loopback aside, is one of its own."""
    real_path: Callable[[str], str]
    """A path with its symbolic links followed."""


ANYWHERE: Final = Machine(lambda _: False, posixpath.normpath)
"""No machine in particular: what is true on all of them."""


class Loops:
    """The circles among services, by the addresses in normal form that each listens on, on one machine."""

    def __init__(self, listeners: Mapping[str, Iterable[str]], machine: Machine = ANYWHERE) -> None:
        self._machine = machine
        self._edges: dict[str, set[str]] = {}
        self._at: dict[tuple[str, str], str] = {}
        """The service of each (host, port); a Unix socket has the host `unix`."""
        self._ports: set[str] = set()
        for service, addresses in listeners.items():
            for address in addresses:
                host, port = _parts(address, machine)
                self._at.setdefault((host, port), service)
                self._ports.add(port)
        self._has_unix = any(host == "unix" for host, _ in self._at)

    def add(self, service: str, address: str) -> str:
        """Take a backend's address, in normal form; return why it leads back and is refused, or nothing."""
        other = self.landing(address)
        if other is None:
            return ""
        if other == service:
            return (
                f"{address} is where this service itself listens: each connection would come back, for ever"
            )
        if other in self._edges.get(service, ()):
            return ""
        way = self._way(other, service)
        if way:
            circle = " -> ".join((service, *way))
            return f"{address} is where service {other} listens, which leads back here ({circle}): each connection would go round, for ever"
        self._edges.setdefault(service, set()).add(other)
        return ""

    def may_land(self, addresses: Collection[str]) -> bool:
        """Return whether any address needs a closer look; of 10,000 backends hardly any does."""
        ports = {address.rpartition(":")[2] for address in addresses}
        unix = self._has_unix and any(address.startswith("unix:") for address in addresses)
        return unix or not ports.isdisjoint(self._ports)

    def landing(self, address: str) -> str | None:
        """Return the service whose listener accepts a connection to an address; None: none of them does."""
        if not self.may_land((address,)):
            return None
        host, port = _parts(address, self._machine)
        host = _LOOPBACK.get(host, host)
        found = self._at.get((host, port))
        if found is not None or host == "unix":
            return found
        every = self._at.get((_ANY_V6 if ":" in host else _ANY_V4, port))
        return every if every is not None and self._is_here(host) else None

    def _is_here(self, host: str) -> bool:
        if ":" in host:
            return host == "::1" or self._machine.is_local(host)
        if not host.rpartition(".")[2].isdigit():
            return False  # a name
        return host.startswith("127.") or self._machine.is_local(host)

    def _way(self, start: str, end: str) -> tuple[str, ...]:
        """Return the services from `start` to `end`, both included; nothing if no way leads there."""
        ways: list[tuple[str, ...]] = [(start,)]
        seen = {start}
        while ways:
            way = ways.pop()
            for following in self._edges.get(way[-1], ()):
                if following == end:
                    return (*way, end)
                if following not in seen:
                    seen.add(following)
                    ways.append((*way, following))
        return ()


def _parts(address: str, machine: Machine) -> tuple[str, str]:
    """Take an address apart; an IPv4 address that is written as IPv6 is the IPv4 address."""
    host, _, port = address.rpartition(":")
    if address.startswith("unix:"):
        return "unix", machine.real_path(address[len("unix:") :])
    if host.startswith("["):
        host = host[1:-1]
        mapped = ipaddress.IPv6Address(host).ipv4_mapped
        if mapped is not None:
            host = str(mapped)
    return host, port
