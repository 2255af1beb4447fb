"""Which addresses from a catalogue may become backends: discovery data is untrusted.

Consul stores whatever it is given: port 70000, ports below zero, `Address: "not a host; rm -rf"`. An address
that reaches the data plane is one that it will connect to from inside the operator's network, so anything that
is not plainly a host for a service is refused here, with the reason.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

MAX_PORT = 65_535
MAX_HOSTNAME = 249  # what a backend address may hold
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

# Cloud metadata services that are not link-local by address: AWS's over IPv6, Alibaba's, Oracle's (RFC 6890 has
# no category for them).
_METADATA = frozenset(
    ipaddress.ip_address(text) for text in ("fd00:ec2::254", "100.100.100.200", "192.0.0.192", "fd20:ce::254")
)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class EndpointRules:
    """What an operator lets through besides plain unicast addresses."""

    allow_link_local: bool = False
    """Accept link-local and cloud metadata addresses."""
    allow_hostnames: bool = False
    """Accept DNS names; they are resolved by the data plane, which sees only the name."""


class RefusedEndpoint(ValueError):  # noqa: N818 - it is a verdict on data, not a fault of ours
    """An address or a port that must not become a backend; the text says why."""


def endpoint(host: object, port: object, rules: EndpointRules) -> str:
    """Return `host:port` (IPv6 in brackets, a port from 1 to 65535) in one normal form.

    Host and port are any JSON values. RefusedEndpoint if the pair must not be used.
    """
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= MAX_PORT:
        raise RefusedEndpoint(f"port {_shown(port)} is not between 1 and {MAX_PORT}")
    if not isinstance(host, str) or not host:
        raise RefusedEndpoint("no address")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"{_hostname(host, rules)}:{port}"
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise RefusedEndpoint(f"address {host} names a network interface")
    _check_address(address, rules)
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"  # noqa: PLR2004 - IP version


def _check_address(address: _Address, rules: EndpointRules) -> None:
    """Refuse an address by what it means, whichever way it is spelled."""
    for meant in (address, *_embedded(address)):
        if meant.is_unspecified or meant.is_multicast or meant == ipaddress.IPv4Address(0xFFFFFFFF):
            raise RefusedEndpoint(f"address {address} is no single host's")
        if not rules.allow_link_local and (meant.is_link_local or meant in _METADATA):
            raise RefusedEndpoint(f"address {address} is link-local or a metadata service's")


def _embedded(address: _Address) -> tuple[ipaddress.IPv4Address, ...]:
    """Return the IPv4 addresses that an IPv6 address would reach through mapping, 6to4 or NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    inner = [address.ipv4_mapped, address.sixtofour]
    if address in _NAT64:
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return tuple(found for found in inner if found is not None)


def _hostname(host: str, rules: EndpointRules) -> str:
    """Return a DNS name in lower case, or refuse it.

    The last label must not be a number: `getaddrinfo` reads `2852039166` and `0xa9.0xfe.169.254` as IPv4
    addresses (inet_aton(3)), which would walk around the address rules.
    """
    name = host.removesuffix(".").lower()
    labels = name.split(".")
    last = labels[-1]
    if len(name) > MAX_HOSTNAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise RefusedEndpoint(f"address {_shown(host)} is neither an IP address nor a host name")
    if last[0].isdigit():
        raise RefusedEndpoint(f"address {_shown(host)} is a number that is no IP address")
    if not rules.allow_hostnames:
        raise RefusedEndpoint(f"address {_shown(host)} is a host name; only IP addresses are accepted")
    return name


def _shown(value: object) -> str:
    """Return a value for a message: quoted, without control characters, short."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - one terminal line
