"""The last good snapshot on disk."""

from __future__ import annotations

import os
import stat

import pytest

from dataplane.node.snapshot_file import SnapshotStore
from schemas.errors import InvalidDocument
from schemas.snapshot import parse_snapshot
from tests.support.users import SERVICE, needs_two_users, owner

SNAPSHOT = parse_snapshot(
    {"version": 1, "generation": 7, "services": {"s": {"listen": "127.0.0.1:1", "backends": ["127.0.0.1:2"]}}}
)


@pytest.fixture
def store(tmp_path):
    """A store in a folder that does not exist yet."""
    return SnapshotStore(tmp_path / "state", "test")


def test_round_trip(store):
    """What was saved is loaded; nothing saved is no error."""
    assert store.load() is None
    store.save(list(SNAPSHOT.text()))
    assert store.load() == SNAPSHOT
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


def test_a_write_that_fails(store, monkeypatch):
    """A write that fails half-way leaves the old file, and nothing else."""
    store.save(list(SNAPSHOT.text()))

    def pieces():
        yield '{"version": 1'
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        store.save(pieces())
    assert store.load() == SNAPSHOT
    assert [path.name for path in store.path.parent.iterdir()] == [store.path.name]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2, "generation": 1, "services": {}}', "\0"])
def test_damage(store, text):
    """A damaged file is an error that the caller knows."""
    store.path.parent.mkdir()
    store.path.write_text(text)
    with pytest.raises((ValueError, InvalidDocument)):
        store.load()


@needs_two_users
def test_root_saves_for_a_service(tmp_path):
    """A data plane that root ran once leaves a snapshot that the service can read."""
    os.chown(tmp_path, SERVICE.pw_uid, SERVICE.pw_gid)
    store = SnapshotStore(tmp_path / "state", "test")
    store.save(list(SNAPSHOT.text()))
    assert {owner(store.path), owner(store.path.parent)} == {SERVICE.pw_name}
