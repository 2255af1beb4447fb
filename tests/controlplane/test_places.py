"""Where things are looked for."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from controlplane.errors import PlaceError
from controlplane.places import endpoint_of, find_dataplanes, runtime_dir, state_dir


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
