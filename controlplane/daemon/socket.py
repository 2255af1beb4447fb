"""The daemon's own Unix socket: private, never stolen from a daemon that lives, gone when it ends."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from controlplane.errors import BusyError, PlaceError
from schemas.addresses import too_long
from schemas.system.ownership import explain_error
from schemas.system.unix_socket import InUse, OwnSocket

__all__ = ["bound"]


@contextlib.contextmanager
def bound(path: Path) -> Iterator[socket.socket]:
    """Bind and listen, as the only process that does.

    It changes the umask for a moment: at start-up, before there are threads to suffer from it.

    Raises:
        BusyError: Another process holds the path; its pid is in the message.
        PlaceError: The directory cannot be made or written, or belongs to others, or its name is too long.
    """
    if problem := too_long(path):
        raise PlaceError(f"--runtime-dir {path.parent}: {problem}")
    own = OwnSocket(path)
    try:
        own.acquire()
        listener = own.listen()
    except InUse as error:
        raise BusyError(str(path), error.pid) from error
    except OSError as error:
        own.unlock()
        place = Path(error.filename) if isinstance(error.filename, str) else path
        raise PlaceError(f"{path}: {explain_error(place, error)}") from error
    try:
        yield listener
    finally:
        own.close()
        listener.close()
