"""Files that are written anew: looked at with times and signatures that are given, so nothing has to be waited for."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from dataplane.tls.files import TlsFileError
from dataplane.tls.renewal import MOST_PAUSE_S, SETTLE_S, Renewed, look_at


class Disk:
    """Files of numbers, and how often they were read."""

    def __init__(self) -> None:
        self.content: dict[str, int | str] = {"/cert": 1, "/key": 1}
        self.version = dict.fromkeys(self.content, 0)
        self.reads = 0

    def write(self, **content: int | str) -> None:
        """Write files anew."""
        for name, value in content.items():
            self.content[f"/{name}"] = value
            self.version[f"/{name}"] += 1

    def look(self, path: str) -> tuple[int, ...]:
        """Return a signature."""
        return (self.version[path],)

    def read(self, _wall: float) -> int | str:
        """Return what both say."""
        self.reads += 1
        cert, key = self.content["/cert"], self.content["/key"]
        if cert != key:
            raise TlsFileError("key", "/key", f"is {key}, not {cert}")
        return cert


@pytest.fixture
def disk() -> Disk:
    """Return one with a pair that fits."""
    return Disk()


@pytest.fixture
def renewed(disk: Disk) -> Renewed[int | str]:
    """Return the pair, read once."""
    return Renewed.of(("/cert", "/key"), disk.read, 0.0, disk.look)


def test_what_does_not_change_is_not_read(disk, renewed):
    """A look is all that it costs."""
    assert not any(renewed.renew(now, 0.0) for now in range(100))
    assert (renewed.value, disk.reads) == (1, 1)


def test_what_is_new_is_taken_at_the_next_look(disk, renewed):
    """And told once."""
    disk.write(cert=2, key=2)
    assert [renewed.renew(now, 0.0) for now in (1, 2)] == [True, False]
    assert (renewed.value, renewed.trouble) == (2, None)


def test_what_was_only_touched_is_no_news(disk, renewed):
    """The content is the same."""
    disk.write(cert=1)
    assert not renewed.renew(1.0, 0.0)
    assert disk.reads == 2


def test_a_key_before_its_certificate_is_waited_for(disk, renewed):
    """Nobody is told of what settles in time; meanwhile the old pair is in use."""
    disk.write(key=2)
    assert not renewed.renew(1.0, 0.0)
    assert (renewed.value, renewed.trouble) == (1, None)
    disk.write(cert=2)
    assert renewed.renew(2.0, 0.0)
    assert (renewed.value, renewed.trouble) == (2, None)


def test_what_does_not_settle_is_told_once_and_the_old_pair_stays(disk, renewed):
    """With its reason, and since when; then it is right, and that is told, even if it is the old content again."""
    disk.write(key=2)
    told = [now for now in range(1, 100) if renewed.renew(float(now), 0.0)]
    assert told == [1 + SETTLE_S]
    assert renewed.trouble is not None
    assert (renewed.trouble.cause, renewed.trouble.since) == ("/key is 2, not 1", 1.0)
    assert renewed.value == 1
    disk.write(key=1)
    assert renewed.renew(100.0, 0.0)
    assert (renewed.value, renewed.trouble) == (1, None)


def test_another_reason_is_told_as_well(disk, renewed):
    """It wants another remedy."""
    disk.write(key=2)
    renewed.renew(1.0, 0.0)
    assert renewed.renew(1 + SETTLE_S, 0.0)
    disk.write(key=3)
    assert renewed.renew(50.0, 0.0)
    assert renewed.trouble.cause == "/key is 3, not 1"
    assert renewed.trouble.since == 1.0


def test_what_fails_is_tried_again_with_pauses_that_grow_to_a_minute(disk, renewed):
    """What is in the way may go without a change of the files, such as a clock that is wrong."""
    disk.write(key=2)
    tried = []
    for now in range(1, 400):
        before = disk.reads
        renewed.renew(float(now), 0.0)
        if disk.reads > before:
            tried.append(now)
    pauses = [later - now for now, later in pairwise(tried)]
    assert pauses[:5] == [1, 2, 4, 8, 16]
    assert set(pauses[6:]) == {MOST_PAUSE_S}
    disk.content["/cert"] = 2  # without a change that could be seen
    assert any(renewed.renew(400.0 + after, 0.0) for after in range(int(MOST_PAUSE_S) + 1))


def test_files_that_cannot_be_used_at_the_beginning(disk):
    """Are the caller's to refuse."""
    disk.write(key=2)
    with pytest.raises(TlsFileError):
        Renewed.of(("/cert", "/key"), disk.read, 0.0, disk.look)


def test_a_change_while_it_is_read_is_seen_at_the_next_look(disk):
    """The signature is of before."""

    def read(wall: float) -> int | str:
        value = disk.read(wall)
        if disk.reads == 1:
            disk.write(cert=2, key=2)
        return value

    renewed = Renewed.of(("/cert", "/key"), read, 0.0, disk.look)
    assert renewed.value == 1
    assert renewed.renew(1.0, 0.0)
    assert renewed.value == 2


def test_every_way_of_replacing_a_file_is_seen(tmp_path: Path):
    """A rename, a link that leads elsewhere (as certbot and Kubernetes do it), a write in place, and that it is gone."""
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cert").write_text("same")
    link, path = tmp_path / "now", str(tmp_path / "now" / "cert")
    link.symlink_to("1")
    seen = [look_at(path)]
    beside = tmp_path / "new"
    beside.symlink_to("2")
    beside.replace(link)
    seen.append(look_at(path))
    (tmp_path / "x").write_text("same")
    (tmp_path / "x").replace(tmp_path / "2" / "cert")
    seen.append(look_at(path))
    (tmp_path / "2" / "cert").write_text("longer")
    seen.append(look_at(path))
    (tmp_path / "2" / "cert").unlink()
    seen.append(look_at(path))
    assert seen[-1] == ()
    assert len(set(seen)) == len(seen)
