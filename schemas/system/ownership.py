"""Whose a file is: what root makes in somebody's folder becomes that somebody's, and what to do where it is not.

Theory of operation:

1. A service runs as a user of its own, and an operator's commands run as root in the same folders. What root made there
   and kept, the service could not read at its next start.
2. So what root makes gets the owner of the folder that it is in. Only what was made just now is given, and made means
   O_EXCL: a link that the folder's owner has laid is neither followed nor given.
3. A path that may not be used is said with its owner and the command that helps.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import stat
from collections.abc import Iterable
from pathlib import Path


def user_name(uid: int) -> str:
    """Name a user; one without an entry is called by number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Make a directory unless it is there, and those above it that are missing.

    OSError: it cannot be made, or is none.
    """
    try:
        path.mkdir(mode)
    except FileNotFoundError:
        make_directory(path.parent, 0o777)
        path.mkdir(mode)
    except FileExistsError:
        if path.is_dir():
            return
        raise
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        give_to_owner(handle, path.parent)
    finally:
        os.close(handle)


def open_or_make(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a file, or make it."""
    flags |= os.O_CREAT | os.O_CLOEXEC
    try:
        handle = os.open(path, flags | os.O_EXCL, mode)
    except FileExistsError:
        return os.open(path, flags, mode)
    give_to_owner(handle, path.parent)
    return handle


def replace_file(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file beside its place, sync it and move it there, so that a crash or a full disk leaves the old one.

    Its directory is made if it is missing.

    Raises:
        OSError: It could not be written; the old file is untouched.
    """
    make_directory(path.parent)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(
        missing_ok=True
    )  # of a process of this id that was killed, or a link that somebody has laid
    try:
        with os.fdopen(open_or_make(beside, os.O_WRONLY | os.O_EXCL), "wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def sync_directory(path: Path) -> None:
    """Make what was moved into a directory outlive a power failure, as fsync(2) says."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def give_to_owner(handle: int, directory: Path) -> None:
    """Give what was made just now to the owner of the directory that it is in, if we are root and they are not."""
    if os.geteuid() != 0:
        return
    with contextlib.suppress(OSError):  # a container's root may not (CAP_CHOWN): then it stays root's
        owner = directory.stat()
        if owner.st_uid != 0:
            os.fchown(handle, owner.st_uid, owner.st_gid)


def explain_error(path: Path, error: OSError) -> str:
    """Say why a path cannot be used; if it may not be, whose it is and what to do."""
    words = error.strerror or str(error)
    if error.errno not in {errno.EACCES, errno.EPERM}:
        return words
    for place in (path, *path.parents):  # the first of which we see anything is what stops us
        with contextlib.suppress(OSError):
            return f"{words}{_advice(place, place.lstat())}"
    return words


def _advice(place: Path, seen: os.stat_result) -> str:
    own, owner = os.geteuid(), seen.st_uid
    if owner == own:
        return ""
    recursive = "-R " if stat.S_ISDIR(seen.st_mode) else ""
    chown = f"sudo chown {recursive}{user_name(own)} {place}"
    said = f": {place} belongs to {user_name(owner)}, not to {user_name(own)}; "
    if own == 0:  # one that may not do everything, as in a container
        return f"{said}use sudo -u {user_name(owner)}"
    if _is_ours(place.parent):
        return f"{said}to put it right: {chown}"
    if owner == 0:
        return f"{said}use sudo, or give it away: {chown}"
    return f"{said}use sudo -u {user_name(owner)}, or sudo"


def _is_ours(directory: Path) -> bool:
    try:
        return directory.stat().st_uid == os.geteuid()
    except OSError:
        return False
