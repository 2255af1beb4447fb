"""Unix sockets that are nobody's but ours."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["listen_privately", "reachable"]

BACKLOG: Final = 128


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """Yield a name of `path` that fits into the 107 bytes of a Unix socket's address, however long its folder's is."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listen_privately(path: Path) -> socket.socket:
    """Listen on a Unix socket of mode 0600; whatever was at the path is replaced in one step."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    mask = os.umask(0o177)
    try:
        with reachable(temporary) as name:
            sock.bind(name)
        sock.listen(BACKLOG)
        temporary.replace(path)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(mask)
    return sock
