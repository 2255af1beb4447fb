"""What the network is told about this node: which routes, and how much they are wanted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

from controlplane.core.readiness import Readiness

Prefix: TypeAlias = IPv4Network | IPv6Network

_COMMUNITY: Final = re.compile(r"\d{1,5}:\d{1,5}")
_LARGE: Final = re.compile(r"\d{1,10}:\d{1,10}:\d{1,10}")
_NAMED: Final = frozenset({"no-export", "no-advertise", "no-peer", "blackhole"})
_MAX_HALF: Final = 0xFFFF
_MAX_WHOLE: Final = 0xFFFFFFFF


class Call(StrEnum):
    """What routers are told about this node's routes."""

    PREFERRED = "preferred"
    """They are there."""
    LOWERED = "lowered"
    """They are there, and others are to be preferred."""
    WITHDRAWN = "withdrawn"
    """They are not there."""


def call_of(verdict: Readiness) -> Call:
    """Say what follows from whether this node is ready."""
    if not verdict.ready:
        return Call.WITHDRAWN
    return Call.PREFERRED if verdict.preferred else Call.LOWERED


@dataclass(frozen=True, slots=True)
class Routes:
    """The routes to this node, and what ExaBGP is told of them."""

    prefixes: Sequence[Prefix]
    next_hop: str = "self"
    """An address, or `self`: the one that the session to the router has on this side."""
    med: int = 100
    med_lowered: int = 200
    communities: Sequence[str] = ()
    """As `community` returns them."""

    def commands(self, call: Call) -> list[str]:
        """Write what ExaBGP is told, a line for each prefix, for its text API."""
        if call is Call.WITHDRAWN:
            return [f"withdraw route {prefix} next-hop {self.next_hop}" for prefix in self.prefixes]
        med = self.med if call is Call.PREFERRED else self.med_lowered
        more = f"next-hop {self.next_hop} med {med}{self._communities()}"
        return [f"announce route {prefix} {more}" for prefix in self.prefixes]

    def _communities(self) -> str:
        large = [each for each in self.communities if each.count(":") == 2]  # noqa: PLR2004 - RFC 8092: three parts
        plain = [each for each in self.communities if each not in large]
        said = ((" community", plain), (" large-community", large))
        return "".join(f"{name} [ {' '.join(each)} ]" for name, each in said if each)


def prefix(text: str) -> Prefix:
    """Read a prefix: an address, or a network without bits of a host; ValueError with the reason."""
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f"must be an address or a network, as 203.0.113.10/32: {error}") from None


def next_hop(text: str) -> str:
    """Read a next hop: an address, or `self`."""
    if text == "self":
        return text
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError(f"must be an address, or self, not {text!r}") from None


def community(text: str) -> str:
    """Read a community: `64512:100`, a large one of three numbers, or one that has a name."""
    if text in _NAMED:
        return text
    parts = (
        [int(part) for part in text.split(":")]
        if _COMMUNITY.fullmatch(text) or _LARGE.fullmatch(text)
        else []
    )
    most = _MAX_HALF if len(parts) == 2 else _MAX_WHOLE  # noqa: PLR2004 - RFC 1997: two halves
    if not parts or max(parts) > most:
        names = ", ".join(sorted(_NAMED))
        raise ValueError(
            f"must be two numbers up to {_MAX_HALF}, three up to {_MAX_WHOLE}, or one of {names}"
        )
    return text
