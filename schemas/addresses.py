"""Addresses and networks in text: checked strictly, and brought into one normal form.

Nothing is resolved here: a host name stays a name.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from schemas.errors import shown

_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4: Final = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_PORT: Final = r"(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
_IPV6: Final = r"\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?\]"
_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME: Final = rf"{_LABEL}(?:\.{_LABEL})*\.?"

LISTEN_ADDRESS_PATTERN: Final = rf"^(?:(?:{_IPV4}|\*|{_IPV6})?:{_PORT}|unix:/.+)$"
BACKEND_ADDRESS_PATTERN: Final = rf"^(?:(?:{_IPV4}|{_IPV6}|{_NAME}):{_PORT}|unix:/.+)$"
CIDR_PATTERN: Final = rf"^(?:{_IPV4}(?:/[0-9]{{1,2}})?|[0-9A-Fa-f:.]+:[0-9A-Fa-f:.]*(?:/[0-9]{{1,3}})?)$"

_FAST: Final = re.compile(rf"{_IPV4}:{_PORT}")
_IPV4_RE: Final = re.compile(_IPV4)
_PORT_RE: Final = re.compile(_PORT)
_NAME_RE: Final = re.compile(_NAME)
_NUMERIC_END: Final = re.compile(r"(?:.*\.)?[0-9]+\.?")
_PREFIX_RE: Final = re.compile(r"0|[1-9][0-9]{0,2}")

# sun_path holds 108 bytes with its closing NUL: unix(7).
_UNIX_PATH_BYTES: Final = 107
# RFC 1035 allows 253; "name:65535" must also fit into a backend id of 255.
_NAME_CHARS: Final = 249


def too_long(path: Path) -> str | None:
    """Say why nobody could connect to a Unix socket at a path; None: anybody can."""
    size = len(os.fsencode(path))
    if size <= _UNIX_PATH_BYTES:
        return None
    return (
        f"the socket {path} would have a path of {size} bytes; a Unix socket's has at most {_UNIX_PATH_BYTES}"
    )


class HostPort(NamedTuple):
    """A TCP address; an IPv6 host stands without brackets."""

    host: str
    port: int


class UnixPath(NamedTuple):
    """A Unix stream socket."""

    path: str


def split_address(text: str) -> HostPort | UnixPath:
    """Take a normalised address apart: `[::1]:80` gives `("::1", 80)`, `unix:/run/x` gives the path."""
    if text.startswith("unix:"):
        return UnixPath(text[len("unix:") :])
    host, _, port = text.rpartition(":")
    return HostPort(host[1:-1] if host.startswith("[") else host, int(port))


def listened_on(listener: str | Mapping[str, Any]) -> tuple[str, ...]:
    """Return the addresses that one entry of a snapshot's `listen` takes: two for both families."""
    if isinstance(listener, str):
        return (listener,)
    address = str(listener["address"])
    both = listener.get("dual_stack", False)
    return (address, f"0.0.0.0:{address.rpartition(':')[2]}") if both else (address,)


def normal_backend_address(value: object) -> str:
    """Normalise a backend's address: `10.0.0.1:80`, `[2001:db8::1]:80`, `host.name:80` or `unix:/run/x.sock`.

    ValueError says what is wrong, for people.
    """
    if isinstance(value, str):
        if _FAST.fullmatch(value):  # 10,000 backends a snapshot: nearly all of them end here
            return value
        if value.startswith("unix:"):
            return _unix(value)
    host, port = _split(value, example="10.0.0.1:80")
    if not host:
        raise ValueError(f'must name a host, such as "10.0.0.1:{port}", not {shown(value)}')
    if host.startswith("["):
        return f"{_ipv6(host)}:{port}"
    return f"{_ipv4_or_name(host)}:{port}"


def normal_listen_address(value: object) -> str:
    """Check and normalise an address to accept on; `:4000` and `*:4000` are all IPv4 addresses.

    ValueError says what is wrong, for people.
    """
    if isinstance(value, str) and value.startswith("unix:"):
        return _unix(value)
    host, port = _split(value, example="127.0.0.1:4000")
    if host in {"", "*"}:
        return f"0.0.0.0:{port}"
    if host.startswith("["):
        return f"{_ipv6(host)}:{port}"
    if _IPV4_RE.fullmatch(_ipv4_or_name(host)) is None:
        raise ValueError(
            f"must be an IP address and a port, because a name may stand for several: "
            f'"127.0.0.1:{port}", "[::]:{port}", not {shown(value)}'
        )
    return f"{host}:{port}"


def normal_cidr(value: object) -> str:
    """Check and normalise a network; host bits are cleared, and a plain address is a network of one.

    ValueError says what is wrong, for people.
    """
    wrong = ValueError(f'must be a network such as "10.0.0.0/8" or "fd00::/8", not {shown(value)}')
    if not isinstance(value, str) or "%" in value:
        raise wrong
    _, slash, prefix = value.partition("/")
    if slash and _PREFIX_RE.fullmatch(prefix) is None:  # netmasks and host masks are ambiguous
        raise wrong
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise wrong from None
    return f"{_ip_text(network.network_address)}/{network.prefixlen}"


def _split(value: object, *, example: str) -> tuple[str, str]:
    if not isinstance(value, str):
        raise ValueError(f'must be an address such as "{example}", not {shown(value)}')  # noqa: TRY004 - one kind of refusal
    host, colon, port = value.rpartition(":")
    if not colon or (value.endswith("]") and value.startswith("[")):
        raise ValueError(f'must be an address with a port, such as "{example}", not {shown(value)}')
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f'must have an IPv6 address in brackets, such as "[::1]:4000", not {shown(value)}')
    if _PORT_RE.fullmatch(port) is None:
        raise ValueError(f"must end in a port from 1 to 65535, not {shown(value)}")
    return host, port


def _ipv6(host: str) -> str:
    try:
        address = ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        raise ValueError(
            f'must have an IPv6 address between the brackets, such as "[::1]", not {shown(host)}'
        ) from None
    if address.is_link_local and address.scope_id is None:
        raise ValueError(
            f'must name the network interface of a link-local address, such as "[fe80::1%eth0]", not {shown(host)}'
        )
    if address.scope_id is not None and not address.is_link_local:
        raise ValueError(
            f"must not name a network interface, as only link-local addresses (fe80::/10) have one: {shown(host)}"
        )
    return f"[{_ip_text(address)}]"


def _ip_text(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    # str() of a mapped address differs between Python versions; a digest must not.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return f"::ffff:{mapped}" if mapped is not None else str(address)


def _ipv4_or_name(host: str) -> str:
    if _NUMERIC_END.fullmatch(host):  # as in a URL: what ends in a number is meant as IPv4
        if _IPV4_RE.fullmatch(host) is None:
            raise ValueError(
                f"must have four numbers from 0 to 255 without leading zeros, such as 10.0.0.1, not {shown(host)}"
            )
        return host
    if len(host) > _NAME_CHARS or _NAME_RE.fullmatch(host) is None:
        raise ValueError(f"must have an IP address or a host name, not {shown(host)}")
    return host.lower()


def _unix(text: str) -> str:
    path = text[len("unix:") :]
    if not path.startswith("/"):
        raise ValueError(f'must have an absolute path, such as "unix:/run/app.sock", not {shown(text)}')
    if not path.isprintable():
        raise ValueError(f"must not contain control characters: {shown(text)}")
    if len(path.encode()) > _UNIX_PATH_BYTES:
        raise ValueError(
            f"must have a path of at most {_UNIX_PATH_BYTES} bytes, as the kernel asks: {shown(text)}"
        )
    return text
