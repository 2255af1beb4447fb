"""Two users on one machine: root, and the one whom a service runs as."""

from __future__ import annotations

import contextlib
import os
import pwd
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

SERVICE: Final = pwd.getpwnam("nobody")
"""Whom the service runs as."""

needs_two_users: Final = pytest.mark.skipif(
    os.geteuid() != 0, reason="root is missing: only root is two users"
)

_ROOT: Final = Path(__file__).resolve().parents[2]
# Whatever is loaded later has to be loaded now: this Python may be in a folder that only root may enter.
_BECOME: Final = """
import concurrent.futures.thread, encodings.ascii, encodings.idna, encodings.latin_1, importlib, os, pkgutil
for package in ("schemas", PACKAGE):
    for found in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        importlib.import_module(found.name)
main = importlib.import_module(MODULE).main
os.setgroups([])
os.setgid(GID)
os.setuid(UID)
main()
"""


def owner(path: Path) -> str:
    """Return the name of a file's owner."""
    return pwd.getpwuid(path.lstat().st_uid).pw_name


@contextlib.contextmanager
def acting_as_service() -> Iterator[None]:
    """Be the service's user inside the block, as far as files are concerned."""
    os.setegid(SERVICE.pw_gid)
    os.seteuid(SERVICE.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def as_service(package: str, module: str) -> list[str]:
    """Return a command line that runs `main` of a module as the service's user; arguments follow.

    Args:
        package: Where all modules come from that it may load, as `controlplane`.
        module: As `controlplane.cli.entry`.
    """
    names = {"PACKAGE": package, "MODULE": module, "UID": SERVICE.pw_uid, "GID": SERVICE.pw_gid}
    given = "\n".join(f"{name} = {value!r}" for name, value in names.items())
    return [sys.executable, "-c", f"import sys\nsys.path.insert(0, {str(_ROOT)!r})\n{given}\n{_BECOME}"]
