"""The last good snapshot on disk; what could not be saved is saved when that becomes possible."""

from __future__ import annotations

import os
import stat

import pytest

from dataplane.node.snapshot_file import SnapshotStore
from schemas.errors import InvalidDocument
from schemas.snapshot import Snapshot, parse_snapshot
from tests.support.dataplane import DataPlane
from tests.support.users import SERVICE, needs_two_users, owner
from tests.support.wait import wait_for

SNAPSHOT = parse_snapshot(
    {"version": 1, "generation": 7, "services": {"s": {"listen": "127.0.0.1:1", "backends": ["127.0.0.1:2"]}}}
)


class Told(list):
    """Takes events."""

    def emit(self, kind, **fields):
        """Note one."""
        self.append((kind, fields))


@pytest.fixture
def store(tmp_path):
    """A store in a folder that does not exist yet."""
    return SnapshotStore(tmp_path / "state", "test", Told())


async def test_round_trip(store):
    """What was saved is loaded; nothing saved is no error."""
    assert store.load() is None
    await store.save(SNAPSHOT)
    assert store.load() == SNAPSHOT
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


async def test_a_write_that_fails(store):
    """A write that fails half-way leaves the old file, and nothing else."""
    await store.save(SNAPSHOT)

    def pieces():
        yield '{"version": 1'
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        store._write(pieces())
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
async def test_root_saves_for_a_service(tmp_path):
    """A data plane that root ran once leaves a snapshot that the service can read."""
    os.chown(tmp_path, SERVICE.pw_uid, SERVICE.pw_gid)
    store = SnapshotStore(tmp_path / "state", "test", Told())
    await store.save(SNAPSHOT)
    assert {owner(store.path), owner(store.path.parent)} == {SERVICE.pw_name}


FIRST, SECOND = (Snapshot(generation=number, services={}) for number in (1, 2))


@pytest.fixture
def blocked(tmp_path):
    """A state directory that cannot be had, until `unlink`."""
    path = tmp_path / "state"
    path.touch()
    return path


async def test_a_failure_is_told_once_and_so_is_its_end(blocked):
    """Tries that fail again are not told again; a success after them is."""
    told = Told()
    store = SnapshotStore(blocked, "x", told)
    await store.save(FIRST)
    await store.again()
    assert [kind for kind, _ in told] == ["snapshot_not_saved"]
    assert not store.saved
    await store.save(SECOND)
    assert [fields["path"] for _, fields in told] == [str(store.path)] * 2
    blocked.unlink()
    await store.again()
    assert (told[2][0], told[2][1]["generation"], len(told)) == ("snapshot_saved", 2, 3)
    assert store.saved
    assert store.load() == SECOND
    await store.save(FIRST)
    assert len(told) == 3


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_same_content_again_saves_what_was_not(workers):
    """Status and metrics say that it is not saved; the same push repairs it, and so does a successor by itself."""
    plane = DataPlane(["--workers", workers])
    plane.state_dir.touch()
    with plane:
        plane.put_snapshot({})
        assert plane.status()["saved"] is False
        assert plane.metrics().values("lb_snapshot_saved") == [0]
        plane.wait_output("snapshot_not_saved")
        plane.state_dir.unlink()
        assert plane.put_snapshot({}, generation=1)["changes"] == []
        assert plane.status()["saved"] is True
        assert plane.metrics().values("lb_snapshot_saved") == [1]
        assert SnapshotStore(plane.state_dir, plane.name, Told()).load().generation == 1


def test_a_successor_saves_what_its_predecessor_could_not():
    """Without anybody pushing anything: the debt is handed over, and tried again until it is paid."""
    plane = DataPlane()
    plane.state_dir.touch()
    with plane:
        plane.put_snapshot({})
        successor = DataPlane(
            ["--takeover"],
            environment={"LB_STATE_DIR": str(plane.state_dir)},
            name=plane.name,
            runtime_dir=plane.runtime_dir,
        )
        with successor:
            assert plane.wait() == 0
            assert successor.status()["saved"] is False
            plane.state_dir.unlink()
            # tried again every few seconds
            wait_for(lambda: successor.status()["saved"], "the snapshot to be saved")
            assert SnapshotStore(plane.state_dir, plane.name, Told()).load().generation == 1
