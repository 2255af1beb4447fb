"""What this machine knows of itself: which addresses are its own."""

from __future__ import annotations

import os
import socket
from typing import Final

from schemas.loops import Machine

__all__ = ["HERE"]

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
