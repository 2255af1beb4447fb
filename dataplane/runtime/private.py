"""Unix sockets that are nobody's but ours."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["listen_privately"]

BACKLOG: Final = 128


def listen_privately(path: Path) -> socket.socket:
    """Listen on a Unix socket of mode 0600; whatever was at the path is replaced in one step."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    mask = os.umask(0o177)
    try:
        sock.bind(str(temporary))
        sock.listen(BACKLOG)
        temporary.replace(path)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(mask)
    return sock
