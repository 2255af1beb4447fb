"""Sockets of a test and descriptors of `net.calls`: how one becomes the other."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dataplane.net.calls import adopt

if TYPE_CHECKING:
    from collections.abc import Iterator


def adopted(sock: socket.socket) -> int:
    """Give a test's socket away; return its descriptor, which `net.calls` knows."""
    family = int(sock.family)
    fd = sock.detach()
    adopt(fd, family)
    return fd


@contextmanager
def looking(fd: int) -> Iterator[socket.socket]:
    """Look at a descriptor through a socket of one's own."""
    with socket.socket(fileno=os.dup(fd)) as sock:
        yield sock


def asked(fd: int, request: int = termios.TIOCOUTQ) -> int:
    """Return the number of bytes that an ioctl tells: of what is not acknowledged, if no other is named."""
    return int(struct.unpack("i", fcntl.ioctl(fd, request, bytes(4)))[0])
