"""Where things are: the runtime and state directories, the control socket, the data planes."""

from __future__ import annotations

import errno
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

from controlplane.errors import DataPlaneError, GoneError, PlaceError, UnreachableError
from schemas.system.locks import is_free, lock_of
from schemas.system.ownership import explain_error

_PREFIX: Final = "dataplane-"
_DRAINING: Final = "draining-"
"""Before the name of a process that has given its name away, and drains."""
_SUFFIX: Final = ".sock"
LEFT_OUT_S: Final = 600.0
"""How long a data plane is shown whose process has ended: until then it counts as one that does not answer."""
_TCP: Final = re.compile(r"[^/]+:\d+")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A data plane's API."""

    name: str
    """The data plane's name; for a URL, its host and port."""
    location: str
    """The path of a Unix socket, or an `http://` or `https://` URL."""

    @property
    def is_url(self) -> bool:
        """Whether it is spoken to over TCP."""
        return "://" in self.location

    @property
    def is_https(self) -> bool:
        """Whether it is spoken to over TLS."""
        return self.location.lower().startswith("https://")

    @property
    def advice(self) -> str:
        """What to add to the message that nobody answers: something, if a path looks like an address."""
        here = self.location
        return f"; for TCP write http://{here} or https://{here}" if _TCP.fullmatch(here) else ""


def result_row(endpoint: Endpoint, answer: object, running: Mapping[str, Any]) -> dict[str, Any]:
    """Tell how one data plane took it, whose answer may be an error, and what it runs now."""
    error = answer if isinstance(answer, DataPlaneError) else None
    return {
        "name": endpoint.name,
        "socket": endpoint.location,
        "result": "ok" if error is None else error.code,
        "error": None if error is None else str(error),
        "generation": running.get("generation"),
        "hash": running.get("hash"),
    }


def runtime_dir(environ: Mapping[str, str], uid: int) -> Path:
    """Where the sockets are: `$LB_RUNTIME_DIR`, else `/run/lb` for root, else `$XDG_RUNTIME_DIR/lb`.

    Raises:
        PlaceError: None of them is known.
    """
    if given := environ.get("LB_RUNTIME_DIR"):
        return Path(given)
    if uid == 0:
        return Path("/run/lb")
    if xdg := environ.get("XDG_RUNTIME_DIR"):
        return Path(xdg, "lb")
    raise PlaceError(
        "no runtime directory: set LB_RUNTIME_DIR or XDG_RUNTIME_DIR, or name one with --runtime-dir"
    )


def state_dir(environ: Mapping[str, str], uid: int) -> Path:
    """Where the history is: `$LB_STATE_DIR`, else `/var/lib/lb` for root, else `$XDG_STATE_HOME/lb`.

    Without `XDG_STATE_HOME` it is `~/.local/state`, as the XDG base directory specification says.

    Raises:
        PlaceError: None of them is known.
    """
    if given := environ.get("LB_STATE_DIR"):
        return Path(given)
    if uid == 0:
        return Path("/var/lib/lb")
    if xdg := environ.get("XDG_STATE_HOME"):
        return Path(xdg, "lb")
    if home := environ.get("HOME"):
        return Path(home, ".local", "state", "lb")
    raise PlaceError("no state directory: set LB_STATE_DIR or HOME, or name one with --state-dir")


def control_socket(directory: Path) -> Path:
    """Where the daemon of a runtime directory listens."""
    return directory / "control.sock"


def endpoint_of(location: str) -> Endpoint:
    """Make an endpoint of what was given with `--dataplane`: a path or a URL."""
    if "://" in location:
        return Endpoint(location.split("://", 1)[1].rstrip("/"), location.rstrip("/"))
    path = Path(location)
    return Endpoint(path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX), str(path))


def find_dataplanes(directory: Path) -> tuple[Endpoint, ...]:
    """List the data planes' sockets in a runtime directory, in the order of their names.

    A directory that is missing has none. Who is gone for `LEFT_OUT_S` is left out: it has been said for long enough.

    Raises:
        PlaceError: The directory may not be read.
    """
    return tuple(endpoint_of(path) for path in _sockets(directory, _PREFIX) if not _long_gone(path))


def find_draining(directory: Path) -> tuple[Endpoint, ...]:
    """List the sockets of processes that only finish what they have; see `find_dataplanes`."""
    return tuple(Endpoint(Path(path).stem, path) for path in _sockets(directory, _DRAINING))


def unreachable(endpoint: Endpoint, reason: str) -> UnreachableError:
    """Return what to raise about a data plane that cannot be asked: that it is gone, if its process is."""
    since = None if endpoint.is_url else _gone_since(endpoint.location)
    if since is None:
        return UnreachableError(endpoint.name, f"{endpoint.location}: {reason}")
    stamp = datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return GoneError(endpoint.name, endpoint.location, stamp)


def _long_gone(path: str) -> bool:
    try:  # first what is cheap: whoever lives says so every minute
        since = lock_of(Path(path)).stat().st_mtime
    except OSError:
        return False
    return time.time() - since > LEFT_OUT_S and _gone_since(path) is not None


def _gone_since(path: str) -> float | None:
    """Return when the process behind a socket was last alive, in Unix seconds, if it has ended; None: it may live.

    Its lock is free and nobody listens: one of both is not enough. While it starts it has the lock and does not listen
    yet, and a process of an older version lives without a lock that could be asked for.
    """
    lock = lock_of(Path(path))
    try:
        since = lock.stat().st_mtime
        if not is_free(lock):
            return None
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            return since if probe.connect_ex(path) == errno.ECONNREFUSED else None
    except OSError:
        return None


def _sockets(directory: Path, prefix: str) -> list[str]:
    try:
        names = [each for each in directory.iterdir() if fnmatch(each.name, f"{prefix}*{_SUFFIX}")]
        return sorted(str(each) for each in names if each.is_socket())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise PlaceError(f"{directory}: {explain_error(directory, error)}") from error
