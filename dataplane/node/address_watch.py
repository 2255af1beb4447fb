"""When this machine's addresses change (which are its own: schemas.system.machine)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["address_changes"]

RTMGRP_IPV4_IFADDR: Final = 0x10
RTMGRP_IPV6_IFADDR: Final = 0x100
"""rtnetlink(7)."""


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
