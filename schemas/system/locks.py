"""Lock files: held for as long as their process lives, however it ends.

Theory of operation:

1. flock(2) keeps others out; whoever has the lock owns what it stands for.
2. Who only wants to know must not take it, not even for a moment, or whoever starts then would be refused. So the holder
   also has a record lock of its open file (fcntl(2), F_OFD_SETLK), which can be asked for without taking it. It is asked
   only of a file whose socket nobody answers at: a process of an older version has no such lock.
3. The pid in the file is a courtesy to who is refused: a full disk must not forbid the lock.
4. The file's time of change is when its holder was last alive, to about a minute (`touch`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TOUCH_S: Final = 60.0
"""How often a holder says that it lives."""
_RECORD: Final = struct.Struct("hhqqi4x")
"""struct flock: type, whence, start, length, pid."""


@dataclass(eq=False)
class LockedError(Exception):
    """Somebody else has the lock."""

    pid: int | None
    """Of that process; None: unknown."""


def lock_of(path: Path) -> Path:
    """Return the lock of a socket."""
    return path.with_name(path.name + ".lock")


def lock(handle: int) -> None:
    """Take the lock of an open file, without waiting; it is held until the file is closed.

    LockedError: somebody has it.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
        raise LockedError(int(holder) if holder.isdecimal() else None) from None
    with contextlib.suppress(OSError):
        fcntl.fcntl(handle, fcntl.F_OFD_SETLK, _whole_file())
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode("ascii"), 0)


def touch(handle: int) -> None:
    """Note that its holder lives."""
    with contextlib.suppress(OSError):
        os.utime(handle)


def is_free(path: Path) -> bool:
    """Tell whether nobody holds a lock, as far as can be seen (rule 2). OSError: it cannot be looked at."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        answer = fcntl.fcntl(handle, fcntl.F_OFD_GETLK, _whole_file())
        kind: int = _RECORD.unpack(answer)[0]
        return kind == fcntl.F_UNLCK
    finally:
        os.close(handle)


def _whole_file() -> bytes:
    return _RECORD.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
