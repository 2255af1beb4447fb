"""A lock is held as long as its process lives, and can be asked for without taking it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from schemas.system.locks import LockedError, is_free, lock, lock_of, touch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A lock file that nobody holds."""
    path = tmp_path / "s.sock.lock"
    path.touch()
    return path


def taken(path: Path) -> int:
    """Open and lock it."""
    handle = os.open(path, os.O_RDWR)
    lock(handle)
    return handle


def test_one_at_a_time(path: Path) -> None:
    """Who is refused learns whose it is; once closed it is free."""
    first = taken(path)
    second = os.open(path, os.O_RDWR)
    with pytest.raises(LockedError) as refused:
        lock(second)
    assert refused.value.pid == os.getpid()
    os.close(first)
    lock(second)
    os.close(second)


def test_asking_takes_nothing(path: Path) -> None:
    """Whoever asks sees whether it is held, and is in nobody's way."""
    assert is_free(path)
    handle = taken(path)
    assert not is_free(path)
    os.close(handle)
    assert is_free(path)


def test_what_the_pid_says_is_a_courtesy(path: Path) -> None:
    """A file that holds no number is a lock all the same."""
    first = taken(path)
    path.write_text("?")
    second = os.open(path, os.O_RDWR)
    with pytest.raises(LockedError) as refused:
        lock(second)
    assert refused.value.pid is None
    os.close(first)
    os.close(second)


def test_the_time_of_change_is_when_its_holder_lived(path: Path) -> None:
    """`touch` renews it."""
    os.utime(path, (1.0, 1.0))
    handle = os.open(path, os.O_RDWR)
    touch(handle)
    os.close(handle)
    assert path.stat().st_mtime > 1.0


def test_the_lock_of_a_socket_is_beside_it() -> None:
    """One name for both planes."""
    assert lock_of(Path("/run/lb/a.sock")) == Path("/run/lb/a.sock.lock")
