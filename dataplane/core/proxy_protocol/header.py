"""What both versions of the PROXY protocol say, and how addresses in it are spelled.

Theory of operation:

1. A header without usable addresses (LOCAL, UNKNOWN, other transports than TCP) is valid and has no endpoints.
2. Addresses come out in one spelling each, the kernel's; a pair of IPv4-mapped ones comes out as IPv4.

Source, here and in the modules beside: "The PROXY protocol, versions 1 & 2" (haproxy.org, doc/proxy-protocol.txt), sections
2.1 to 2.2.6. Where it leaves the receiver a choice, the strict one is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address
from typing import Final, NamedTuple


class NeedData(Enum):
    """The type of `NEED_DATA`."""

    NEED_DATA = "need_data"


NEED_DATA: Final = NeedData.NEED_DATA


class Fault(Enum):
    """What is wrong with a header."""

    START = "starts like neither version"
    KEYWORD = "not TCP4, TCP6 or UNKNOWN"
    ADDRESS = "malformed address, or one of another family"
    PORT = "malformed port"
    FIELDS = "more or fewer than four fields"
    LINE_END = "CR or LF other than the CR LF at the end"
    TOO_LONG = "line of more than 107 bytes"
    SIGNATURE = "wrong signature"
    COMMAND = "version other than 2, or a command that does not exist"
    FAMILY = "family and transport that do not exist"
    LENGTH = "shorter than the addresses of its family"
    TLV = "malformed type-length-value field"
    CHECKSUM = "wrong checksum"


class ProxyError(Exception):
    """These bytes are not, and will not become, a valid header.

    Attributes:
        fault: What is wrong.
        head: The first bytes that arrived, at most 32, for the log.
    """

    def __init__(self, fault: Fault, head: bytes) -> None:
        super().__init__(fault, head)
        self.fault = fault
        self.head = head[:32]

    def __str__(self) -> str:
        return f"invalid PROXY header: {self.fault.value}: {self.head!r}"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The two ends of the client's connection: IP literals and ports, both of one family."""

    source: tuple[str, int]
    destination: tuple[str, int]


class Field(NamedTuple):
    """What version 2 may have behind its addresses: a type, and a value of at most 65535 bytes."""

    kind: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """A valid header."""

    version: int
    endpoints: Endpoints | None
    """None: the addresses of the connection itself hold."""
    fields: tuple[Field, ...] = ()
    """What version 2 has beside them, as it came; behind LOCAL there is nothing that counts."""


def spell_v6(address: str | bytes) -> str:
    """Spell an address as the kernel's tools do; ipaddress writes a mapped one in hexadecimal before 3.13."""
    parsed = IPv6Address(address)
    return str(parsed) if parsed.ipv4_mapped is None else f"::ffff:{parsed.ipv4_mapped}"


def _ipv4_of(ip: str) -> str | None:
    """Return an IPv4 literal, or the IPv4 address that an IPv6 literal maps, else None."""
    if ":" not in ip:
        return ip
    tail = ip.removeprefix("::ffff:")  # as the kernel spells every IPv4 client of a dual-stack listener
    if "." in tail and ":" not in tail:
        return tail
    if ip[0] not in ":0":  # a mapped address begins with a group of zeros: most need no parsing
        return None
    mapped = IPv6Address(ip.partition("%")[0]).ipv4_mapped
    return None if mapped is None else str(mapped)


def one_family(source: str, destination: str) -> tuple[str, str]:
    """Spell two addresses as IPv4 if both can be, else as IPv6 without a scope."""
    source4, destination4 = _ipv4_of(source), _ipv4_of(destination)
    if source4 is not None and destination4 is not None:
        return source4, destination4
    return (
        source.partition("%")[0] if source4 is None else f"::ffff:{source4}",
        destination.partition("%")[0] if destination4 is None else f"::ffff:{destination4}",
    )
