"""What this machine knows of itself: which addresses are its own. Both planes ask, and must get the same answer."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from typing import Final

from schemas.loops import Machine

_HEADER: Final = struct.Struct("=IHHII")
"""struct nlmsghdr (netlink(7)): length, type, flags, sequence number, port id."""
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
"""struct rtmsg (rtnetlink(7)): family, bits of the destination, bits of the source, tos, table, protocol, scope, type, flags."""
_ATTRIBUTE: Final = struct.Struct("=HH")
"""struct rtattr: length, type."""
_GET_ROUTE: Final = 26
_NEW_ROUTE: Final = 24
_REQUEST: Final = 1
_DESTINATION: Final = 1
_INTERFACE: Final = 4
_IS_LOCAL: Final = 2
"""RTN_LOCAL: delivered here."""


def _is_local(host: str) -> bool:
    """Tell whether the kernel delivers to itself what is sent to an IP address; False if it cannot be asked.

    Neither trying to bind the address tells (net.ipv4.ip_nonlocal_bind), nor calling it to see from where: an
    interface's second address is called from the first.
    """
    host, _, interface = host.partition("%")
    address = ipaddress.ip_address(host)
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET  # noqa: PLR2004 - IP version
    try:
        attributes = _attribute(_DESTINATION, address.packed)
        if interface:
            attributes += _attribute(_INTERFACE, struct.pack("=I", socket.if_nametoindex(interface)))
        route = _ROUTE.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
        size = _HEADER.size + len(route) + len(attributes)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
            sock.sendall(_HEADER.pack(size, _GET_ROUTE, _REQUEST, 1, 0) + route + attributes)
            answer = sock.recv(4096)  # the kernel has answered when it has taken the question
    except OSError:  # no such interface, or a sandbox without the family
        return False
    if _HEADER.unpack_from(answer)[1] != _NEW_ROUTE:  # no route leads there
        return False
    return bool(_ROUTE.unpack_from(answer, _HEADER.size)[7] == _IS_LOCAL)


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value


HERE: Final = Machine(_is_local, os.path.realpath)
