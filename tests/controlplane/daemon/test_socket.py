"""The daemon's socket: private, never stolen, gone at the end."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys

import pytest

from controlplane.daemon.socket import bound
from controlplane.errors import BusyError, PlaceError

HOLDER = """
import sys, pathlib
from controlplane.daemon.socket import bound
with bound(pathlib.Path(sys.argv[1])):
    print("bound", flush=True)
    sys.stdin.read()
"""


def test_socket_is_private_whatever_the_umask(tmp_path):
    """The socket has mode 0600 in a directory of mode 0700, and the umask is as before."""
    path = tmp_path / "run" / "control.sock"
    before = os.umask(0)
    try:
        with bound(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert os.umask(0) == 0
    finally:
        os.umask(before)


def test_socket_is_gone_at_the_end(tmp_path):
    """Nobody finds a socket that nobody serves."""
    path = tmp_path / "control.sock"
    with bound(path):
        assert path.is_socket()
    assert not path.exists()


def test_live_socket_is_never_stolen(tmp_path):
    """A second daemon is refused with the first one's pid, and the first goes on being reached."""
    path = tmp_path / "control.sock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"bound\n"
        inode = path.stat().st_ino
        with pytest.raises(BusyError, match=f"pid {first.pid}"), bound(path):
            pass
        assert path.stat().st_ino == inode
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        first.kill()
        first.wait()
        assert path.is_socket()
        with bound(path), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_place_that_cannot_be_had_is_named(tmp_path):
    """A path through a file is an error that names it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(PlaceError, match=r"control\.sock: "), bound(tmp_path / "file" / "control.sock"):
        pass
