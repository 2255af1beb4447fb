"""A Unix socket of one's own: private, never stolen, gone at the end."""

from __future__ import annotations

import os
import socket
import stat

import pytest

from schemas.system.locks import lock_of
from schemas.system.unix_socket import InUse, OwnSocket, listen_privately, peer_uid, reachable


@pytest.fixture
def path(tmp_path):
    """Return where the socket is."""
    return tmp_path / "run" / "own.sock"


@pytest.fixture
def own(path):
    """Yield a socket that we have."""
    own = OwnSocket(path)
    own.acquire()
    with own.listen():
        yield own
    own.remove()


def connect(path):
    """Connect as a client does."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_it_is_private_whatever_the_umask(path):
    """It has mode 0600 in a directory of mode 0700, and the umask is as before."""
    before = os.umask(0)
    try:
        own = OwnSocket(path)
        own.acquire()
        with own.listen():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert os.umask(0) == 0
        own.remove()
    finally:
        os.umask(before)


def test_a_live_one_is_not_taken(own, path):
    """Who comes second is refused with the pid of who has it, which goes on being reached."""
    second = OwnSocket(path)
    with pytest.raises(InUse, match=f"own.sock is in use by process {os.getpid()}") as refused:
        second.acquire()
    assert (refused.value.path, refused.value.pid) == (path, os.getpid())
    second.close()
    connect(path)
    own.acquire()  # once more is no error


def test_a_stale_one_is_taken(own, path):
    """Who has the lock replaces what is at the path, and the former leaves the new one alone."""
    own.unlock()
    second = OwnSocket(path)
    second.acquire()
    with second.listen():
        own.close()
        connect(path)
        second.close()
    assert not path.exists()


def test_closed_once_more_it_leaves_the_next_one_alone(own, path, tmp_path):
    """Even if the kernel gives the next one's file the same number."""
    os.link(path, path.with_name("kept"))
    own.close()
    path.with_name("kept").rename(path)
    own.close()
    assert path.exists()


def test_nothing_is_left(own, path):
    """With `remove` the lock goes, too."""
    own.close()
    assert not path.exists()
    assert lock_of(path).exists()
    own.acquire()
    own.remove()
    assert list(path.parent.iterdir()) == []


def test_long_paths(tmp_path):
    """A path may be longer than an address of the kernel's, if its last part is not."""
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    path = folder / "own.sock"
    with listen_privately(path), socket.socket(socket.AF_UNIX) as client, reachable(path) as name:
        client.connect(name)
    assert [each.name for each in folder.iterdir()] == ["own.sock"]


def test_what_cannot_be_bound_leaves_nothing(tmp_path):
    """A directory at the path is not replaced."""
    (tmp_path / "own.sock").mkdir()
    with pytest.raises(OSError, match="directory"):
        listen_privately(tmp_path / "own.sock")


def test_the_peer_is_known_by_the_kernel():
    """Whoever connects cannot lie about who it is."""
    one, two = socket.socketpair(socket.AF_UNIX)
    with one, two:
        assert peer_uid(one) == os.getuid()
