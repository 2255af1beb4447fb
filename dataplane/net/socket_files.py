"""Mode, owner and group of the Unix sockets that are listened on, and why an address cannot be had."""

from __future__ import annotations

import errno
import grp
import os
import pwd
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from dataplane.core.spec import ListenSpec
from dataplane.errors import BindError

MAX_ID: Final = 0xFFFFFFFE
"""The number above it means "leave it as it is" to chown(2)."""
PLAIN: Final = ListenSpec()
NO_OPTIONS: Final[Mapping[str, ListenSpec]] = MappingProxyType({})
"""By address: none has any."""


def find_ids(spec: ListenSpec) -> tuple[int, int]:
    """Return the user and the group of a socket; those of this process where nothing is said.

    Raises:
        OSError: There is none of that name.
    """
    try:
        user = _id(spec.owner, os.geteuid(), lambda name: pwd.getpwnam(name).pw_uid)
    except KeyError:
        raise OSError(errno.ENOENT, f"there is no user {spec.owner}") from None
    try:
        return user, _id(spec.group, os.getegid(), lambda name: grp.getgrnam(name).gr_gid)
    except KeyError:
        raise OSError(errno.ENOENT, f"there is no group {spec.group}") from None


def dress(path: str, spec: ListenSpec) -> None:
    """Give a socket's file its mode, owner and group; raises OSError."""
    user, group = find_ids(spec)
    mode = spec.mode
    if mode is None:
        mask = os.umask(0o077)
        os.umask(mask)
        mode = 0o777 & ~mask
    os.chmod(path, mode)  # noqa: PTH101 - and chown, which Path has not with numbers
    os.chown(path, user, group)


def rehearse(address: str, spec: ListenSpec) -> None:
    """Raise `BindError` if there is no user or group of the name that the socket at an address should have."""
    try:
        find_ids(spec)
    except OSError as error:
        raise BindError(address, error) from error


class SocketFiles:
    """Changes the files of sockets that are listened on already, with the rest of a change or not at all."""

    def __init__(self) -> None:
        self._specs: dict[str, ListenSpec] = {}
        """By address: what its file has, where that is not the usual."""
        self._next: dict[str, ListenSpec] = {}
        self._before: list[tuple[str, os.stat_result]] = []

    def prepare(self, there: Iterable[str], wanted: Mapping[str, ListenSpec]) -> None:
        """Dress the sockets among `there`, which others open meanwhile anew, as `wanted` says.

        Raises:
            BindError: One cannot be; all are as before.
        """
        self._next = {address: spec for address, spec in wanted.items() if address.startswith("unix:")}
        for address in there:
            spec = self._next.get(address, PLAIN)
            if not address.startswith("unix:") or spec == self._specs.get(address, PLAIN):
                continue
            path = address[5:]
            try:
                self._before.append((path, os.stat(path)))  # noqa: PTH116 - the same
                dress(path, spec)
            except OSError as error:
                self.abandon()
                raise BindError(address, error) from error

    def abandon(self) -> None:
        """Put back what `prepare` has changed."""
        for path, was in self._before:
            os.chmod(path, was.st_mode & 0o7777)  # noqa: PTH101 - the same
            os.chown(path, was.st_uid, was.st_gid)
        self._before = []

    def commit(self) -> None:
        """Let what was prepared hold."""
        self._specs, self._before = self._next, []


def _id(text: str, default: int, look_up: Callable[[str], int]) -> int:
    if not text:
        return default
    if not text.isdecimal():
        return look_up(text)
    number = int(text)
    if number > MAX_ID:
        raise KeyError(text)
    return number
