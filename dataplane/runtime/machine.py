"""What this machine knows of itself: which addresses are its own, and when that changes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Final

from schemas.loops import Machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["HERE", "address_changes"]

RTMGRP_IPV4_IFADDR: Final = 0x10
RTMGRP_IPV6_IFADDR: Final = 0x100
"""rtnetlink(7)."""
_DISCARD: Final = 9
"""Any port would do (RFC 863)."""


def _is_local(host: str) -> bool:
    """Tell whether an IP address is one of this machine's: the kernel then calls it from itself.

    A datagram socket that is connected sends nothing; it only looks up the route.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.connect((host, _DISCARD))
            own = str(sock.getsockname()[0])
    except OSError:  # no route, so nobody's that could be reached
        return False
    return own == host.partition("%")[0]


HERE: Final = Machine(_is_local, os.path.realpath)


@contextlib.contextmanager
def address_changes(on_change: Callable[[], None]) -> Iterator[None]:
    """Call `on_change` after each change of this machine's addresses; never, where the kernel does not tell."""
    loop = asyncio.get_running_loop()
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    except OSError:  # a sandbox without the family
        yield
        return

    def drain() -> None:
        with contextlib.suppress(OSError):  # nothing more there, or (ENOBUFS) more than was kept
            while sock.recv(65536):
                pass
        on_change()

    with sock:
        sock.bind((0, RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))
        loop.add_reader(sock, drain)
        try:
            yield
        finally:
            loop.remove_reader(sock)
