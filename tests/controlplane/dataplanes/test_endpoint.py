"""Where things are looked for."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
from pathlib import Path

import pytest

from controlplane.dataplanes.endpoint import (
    LEFT_OUT_S,
    endpoint_of,
    find_dataplanes,
    runtime_dir,
    state_dir,
    unreachable,
)
from controlplane.errors import GoneError, PlaceError
from schemas.system.locks import lock, lock_of


@pytest.mark.parametrize(
    ("environ", "uid", "runtime", "state"),
    [
        ({"LB_RUNTIME_DIR": "/r", "LB_STATE_DIR": "/s"}, 0, "/r", "/s"),
        ({}, 0, "/run/lb", "/var/lib/lb"),
        ({"XDG_RUNTIME_DIR": "/xr", "XDG_STATE_HOME": "/xs"}, 5, "/xr/lb", "/xs/lb"),
        ({"XDG_RUNTIME_DIR": "/xr", "HOME": "/h"}, 5, "/xr/lb", "/h/.local/state/lb"),
    ],
)
def test_directories(environ, uid, runtime, state):
    """Ours first, then the system's for root, then the user's."""
    assert (runtime_dir(environ, uid), state_dir(environ, uid)) == (Path(runtime), Path(state))


def test_unknown_directories_are_errors_that_say_what_to_set():
    """A user without XDG directories is told."""
    with pytest.raises(PlaceError, match="LB_RUNTIME_DIR"):
        runtime_dir({}, 5)
    with pytest.raises(PlaceError, match="LB_STATE_DIR"):
        state_dir({}, 5)


def test_only_sockets_of_data_planes_are_found(tmp_path):
    """Locks, the daemon's socket and stray files are none; the order is that of the names."""
    names = ["dataplane-b.sock", "dataplane-a.sock", "control.sock"]
    listeners = [socket.socket(socket.AF_UNIX) for _ in names]
    for listener, name in zip(listeners, names, strict=True):
        listener.bind(str(tmp_path / name))
        listener.close()
    (tmp_path / "dataplane-x.sock").write_text("")
    (tmp_path / "dataplane-a.sock.lock").write_text("")
    assert [each.name for each in find_dataplanes(tmp_path)] == ["a", "b"]
    assert find_dataplanes(tmp_path / "missing") == ()


def test_endpoints_of_paths_and_urls():
    """What is given is a path, or a URL that is spoken to over TCP."""
    assert endpoint_of("/run/lb/dataplane-a.sock").name == "a"
    url = endpoint_of("https://node:8443/")
    assert (url.name, url.location, url.is_url) == ("node:8443", "https://node:8443", True)
    schemes = ("https://node:1", "HTTPS://node:1", "http://node:1", "/run/https://x")
    assert [endpoint_of(each).is_https for each in schemes] == [True, True, False, False]


class Left:
    """A socket and its lock, as a data plane has them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "dataplane-old.sock"
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind(str(self.path))
        self.lock = os.open(lock_of(self.path), os.O_RDWR | os.O_CREAT, 0o600)
        lock(self.lock)
        self.endpoint = endpoint_of(str(self.path))

    def listen(self):
        """Serve."""
        self.sock.listen()

    def die(self):
        """Leave both behind."""
        self.sock.close()
        os.close(self.lock)

    def age(self, seconds):
        """Have been alive last so long ago."""
        then = time.time() - seconds
        os.utime(lock_of(self.path), (then, then))

    def found(self):
        """Return whether it is among the data planes."""
        return self.endpoint in find_dataplanes(self.folder)


@pytest.fixture
def left():
    """One that has just started."""
    with tempfile.TemporaryDirectory(prefix="lb-") as folder:
        made = Left(Path(folder))
        yield made
        for close in (made.sock.close, lambda: os.close(made.lock)):
            with contextlib.suppress(OSError):
                close()


def test_who_has_died_is_gone_and_then_left_out(left):
    """It is said since when, with the command that removes it; and after ten minutes no more."""
    left.listen()
    left.die()
    left.age(LEFT_OUT_S - 60)
    error = unreachable(left.endpoint, "connection refused")
    assert isinstance(error, GoneError)
    assert f"rm {left.path}" in str(error)
    assert left.found()
    left.age(LEFT_OUT_S + 60)
    assert not left.found()
    assert left.path.exists()


@pytest.mark.parametrize("listens", [True, False])
def test_who_lives_is_never_left_out(left, listens):
    """Neither one that starts, nor one whose clock was set: its lock is held."""
    if listens:
        left.listen()
    left.age(10 * LEFT_OUT_S)
    assert left.found()
    assert not isinstance(unreachable(left.endpoint, "does not answer"), GoneError)


def test_who_listens_is_there_whatever_its_lock_says(left):
    """A process of an older version has a lock that cannot be asked for."""
    left.listen()
    os.close(left.lock)
    left.age(10 * LEFT_OUT_S)
    assert left.found()
    left.lock = os.open(lock_of(left.path), os.O_RDWR)


def test_a_socket_without_a_lock_is_nobody_known_to_be_gone(left):
    """What cannot be known is not claimed."""
    left.die()
    lock_of(left.path).unlink()
    assert left.found()
    assert not isinstance(unreachable(left.endpoint, "connection refused"), GoneError)
