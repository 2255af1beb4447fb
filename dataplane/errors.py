"""Everything that the data plane raises and that a caller elsewhere handles.

DataPlaneError
├── Refused             a request that changes nothing: HTTP status, code, message, details
├── StartError          the process cannot start as it was asked to: its exit code
├── UsageError          the command line contradicts itself
├── TakeoverError       a running process did not give its sockets, or not as announced
├── BindError           a listening socket could not be had: address, cause
├── PeerGone            the process at the other end of a channel has ended
├── PeerError           the process at the other end of a channel answered with an error
├── LocalError          this machine could not probe a backend, which may be well
└── NowhereError        a backend has no address that may be called

`core.proxy_protocol.header.ProxyError`, what a client's bytes can be, stands beside the decoders that alone raise it.
"""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final


class DataPlaneError(Exception):
    """What the data plane says instead of doing it."""


class Refused(DataPlaneError):  # noqa: N818 - an answer, not a failure
    """A request that changes nothing, with the HTTP status that says why."""

    def __init__(self, status: int, code: str, message: str, details: Sequence[dict[str, str]] = ()) -> None:
        """Make one; `details` are `{path, message}` of each place in the body that it is about."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = details


class StartError(DataPlaneError):
    """The process cannot start as it was asked to; the text tells the operator why."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class UsageError(DataPlaneError):
    """The command line contradicts itself."""


class TakeoverError(DataPlaneError):
    """Nobody gives, or what was given is not what it should be."""


class BindError(DataPlaneError):
    """A listening socket could not be had."""

    def __init__(self, address: str, error: OSError) -> None:
        super().__init__(address, error)
        self.address = address
        self.error = error

    def __str__(self) -> str:
        number = self.error.errno or 0
        said = self.error.strerror or os.strerror(number)
        hint = _unix_hint(self.address, number) if self.address.startswith("unix:") else _HINTS.get(number)
        # One with words of its own says all that there is.
        return f"cannot listen on {self.address}: {said}{f'; {hint}' if hint and said == os.strerror(number) else ''}"


_HINTS: Final = {
    errno.EADDRINUSE: "see who has it with: ss -ltnp",
    errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE",
    errno.ENODEV: "its network interface is not there: see ip link",
    errno.EADDRNOTAVAIL: "no interface has it: for a virtual IP, listen with freebind: true",
}


def _unix_hint(address: str, number: int) -> str | None:
    path = Path(address.removeprefix("unix:"))
    there, folder = shlex.quote(str(path)), shlex.quote(str(path.parent))
    return {
        errno.EADDRINUSE: f"see who has it with: ss -xlp | grep -F {there}",
        errno.EEXIST: f"what is there is no socket, and is left alone: see ls -l {there}",
        errno.EACCES: f"its folder may not be written: see ls -ld {folder}",
        errno.ENOENT: f"its folder is not there: {folder}",
        errno.EPERM: "only root, or CAP_CHOWN, gives a socket to another user, or to a group that one is not in",
    }.get(number)


class PeerGone(DataPlaneError):  # noqa: N818 - a fact about the peer, not a failure of ours
    """The peer has closed its end, or has ended."""


class PeerError(DataPlaneError):
    """The peer answered a request with an error; its text says which."""


class LocalError(DataPlaneError):
    """This machine could not probe: out of descriptors, ports or memory. It says nothing of the backend."""


class NowhereError(DataPlaneError):
    """A backend has no address that may be called, or none yet. Whoever knows why has said it."""
