"""A snapshot that could not be saved is saved when that becomes possible."""

from __future__ import annotations

import pytest

from dataplane.node.saving import Saving
from dataplane.node.snapshot_file import SnapshotStore
from schemas.snapshot import Snapshot
from tests.support.dataplane import DataPlane
from tests.support.wait import wait_for

FIRST, SECOND = (Snapshot(generation=number, services={}) for number in (1, 2))


class Told(list):
    """Takes events."""

    def emit(self, kind, **fields):
        """Note one."""
        self.append((kind, fields))


@pytest.fixture
def blocked(tmp_path):
    """A state directory that cannot be had, until `unlink`."""
    path = tmp_path / "state"
    path.touch()
    return path


async def test_a_failure_is_told_once_and_so_is_its_end(blocked):
    """Tries that fail again are not told again; a success after them is."""
    store, told = SnapshotStore(blocked, "x"), Told()
    saving = Saving(store, told)
    await saving.save(FIRST)
    await saving.again()
    assert [kind for kind, _ in told] == ["snapshot_not_saved"]
    assert not saving.saved
    await saving.save(SECOND)
    assert [fields["path"] for _, fields in told] == [str(store.path)] * 2
    blocked.unlink()
    await saving.again()
    assert (told[2][0], told[2][1]["generation"], len(told)) == ("snapshot_saved", 2, 3)
    assert saving.saved
    assert store.load() == SECOND
    await saving.save(FIRST)
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
        assert SnapshotStore(plane.state_dir, plane.name).load().generation == 1


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
            assert SnapshotStore(plane.state_dir, plane.name).load().generation == 1
