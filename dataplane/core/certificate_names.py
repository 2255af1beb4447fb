"""Whom a certificate is for: a name or an address against what it says (RFC 6125, RFC 9525)."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address


def covers(names: Iterable[tuple[str, str]], wanted: str) -> bool:
    """Tell whether a certificate is for `wanted`.

    A `*` stands for one whole label, the first; common names do not count.

    Args:
        names: As `ssl.SSLSocket.getpeercert` has the `subjectAltName`: kinds (`DNS`, `IP Address`) with values.
        wanted: A host name in ASCII, or an IP address.
    """
    address = _address(wanted)
    if address is not None:
        return any(kind == "IP Address" and _address(value.strip()) == address for kind, value in names)
    name = wanted.lower().removesuffix(".")
    first, dot, rest = name.partition(".")
    # A star for the label before a top-level domain would be for all the world.
    wildcard = f"*.{rest}" if first and dot and "." in rest else None
    return any(kind == "DNS" and value.lower().removesuffix(".") in {name, wildcard} for kind, value in names)


def _address(text: str) -> bytes | None:
    try:
        return ip_address(text).packed
    except ValueError:
        return None
