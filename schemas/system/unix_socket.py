"""Unix sockets that are nobody's but ours: private from the first moment, and never taken from a process that lives."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.system.locks import TOUCH_S, LockedError, lock, lock_of, touch
from schemas.system.ownership import make_directory, open_or_make

BACKLOG: Final = 128
_CREDENTIALS: Final = struct.Struct("3i")
"""struct ucred: pid, uid, gid."""


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """Yield a name of `path` that fits into the 107 bytes of a Unix socket's address, however long its folder's is."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listen_privately(path: Path) -> socket.socket:
    """Listen on a Unix socket of mode 0600; whatever was at the path is replaced in one step.

    It is bound under umask 0177, because there is no moment after bind() at which others could not connect already.
    """
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


def peer_uid(sock: socket.socket) -> int:
    """Return the user at the other end, as the kernel knows it (unix(7), SO_PEERCRED)."""
    _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)


@dataclass(eq=False)
class InUse(Exception):  # noqa: N818 - an answer to the user, not a failure
    """Another process has the socket."""

    path: Path
    pid: int | None

    def __str__(self) -> str:
        return f"{self.path} is in use by process {self.pid or 'unknown'}"


class OwnSocket:
    """A Unix socket under a lock, so that a live one is never taken over and a stale one always is.

    Its directory is made with mode 0700.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1
        self._inode = 0

    def acquire(self) -> None:
        """Take the lock; it holds until this process ends.

        InUse: somebody has it. OSError: the directory cannot be had.
        """
        if self._lock >= 0:
            return
        make_directory(self.path.parent)
        handle = open_or_make(lock_of(self.path), os.O_RDWR | os.O_NOFOLLOW)
        try:
            lock(handle)
        except LockedError as error:
            os.close(handle)
            raise InUse(self.path, error.pid) from None
        self._lock = handle

    def listen(self) -> socket.socket:
        """Bind and listen; whatever was at the path is stale, or a predecessor's that is ending: we have the lock."""
        sock = listen_privately(self.path)
        self._inode = self.path.stat().st_ino
        return sock

    def unlock(self) -> None:
        """Let a successor have the lock, and replace the socket."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def close(self) -> None:
        """Remove the socket if it is still ours, and let the lock go."""
        with contextlib.suppress(OSError):
            if self._inode and self.path.stat().st_ino == self._inode:
                self.path.unlink()
        self._inode = 0  # the next file at the path may get the same number
        self.unlock()

    def remove(self) -> None:
        """Remove the lock as well: nobody else will ever want this name."""
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                lock_of(self.path).unlink()
        self.close()

    async def live(self) -> None:
        """Say from time to time that this process lives, to whoever finds its socket after its death."""
        while True:
            await asyncio.sleep(TOUCH_S)
            if self._lock >= 0:
                touch(self._lock)
