"""The daemon's own Unix socket: private, never stolen from a daemon that lives, gone when it ends."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from controlplane.errors import BusyError, PlaceError
from schemas.addresses import too_long
from schemas.system.locks import LockedError, lock, lock_of
from schemas.system.ownership import explain_error, make_directory, open_or_make

__all__ = ["bound", "peer_uid"]


@contextlib.contextmanager
def bound(path: Path) -> Iterator[socket.socket]:
    """Bind and listen, as the only process that does.

    The lock is taken first: whoever holds it owns the path, so a socket that is there then is a dead one's.
    Binding happens under a umask of 0177, at start-up, before there are threads to suffer from it.

    Raises:
        BusyError: Another process holds the path; its pid is in the message.
        PlaceError: The directory cannot be made or written, or belongs to others, or its name is too long.
    """
    if problem := too_long(path):
        raise PlaceError(f"--runtime-dir {path.parent}: {problem}")
    with contextlib.ExitStack() as stack:
        try:
            make_directory(path.parent)
            stack.enter_context(_locked(lock_of(path), path))
            path.unlink(missing_ok=True)
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.setblocking(False)
            umask = os.umask(0o177)
            try:
                listener.bind(str(path))
            finally:
                os.umask(umask)
            listener.listen()
        except OSError as error:
            place = Path(error.filename) if isinstance(error.filename, str) else path
            raise PlaceError(f"{path}: {explain_error(place, error)}") from error
        inode = path.stat().st_ino
        try:
            yield listener
        finally:
            with contextlib.suppress(OSError):
                if path.stat().st_ino == inode:
                    path.unlink()


@contextlib.contextmanager
def _locked(beside: Path, path: Path) -> Iterator[None]:
    handle = open_or_make(beside, os.O_RDWR | os.O_NOFOLLOW)
    try:
        try:
            lock(handle)
        except LockedError as error:
            raise BusyError(str(path), error.pid) from error
        yield
    finally:
        os.close(handle)


def peer_uid(connection: socket.socket) -> int:
    """Return the user at the other end of a Unix socket, as the kernel knows it (unix(7), SO_PEERCRED)."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return int(uid)
