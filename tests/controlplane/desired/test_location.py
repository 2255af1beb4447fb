"""Watching a file: every way to replace it is seen, a torn one is waited for, a missing one changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.desired.document import read_file
from controlplane.desired.location import FileSource, Settling
from controlplane.errors import InputError

PERIOD_S = 0.005


def test_change_is_read_when_two_looks_agree():
    """A writer that pauses in the middle is waited for."""
    settling = Settling((1,))
    assert [settling.look((n,)) for n in (1, 2, 3, 3, 3)] == [False, False, False, True, False]


def test_change_that_is_taken_back_is_none():
    """What returns to what was read before is not read again."""
    settling = Settling((1,))
    assert [settling.look((n,)) for n in (2, 1, 1)] == [False, False, False]


def test_file_that_goes_is_seen():
    """Missing is a signature of its own."""
    settling = Settling((1,))
    assert [settling.look(n) for n in (None, None, None)] == [False, True, False]


@settings(deadline=None)
@given(st.lists(st.sampled_from([None, (1,), (2,)])), st.sampled_from([None, (1,), (2,)]))
def test_whatever_comes_to_rest_was_read(looks, last):
    """After two equal looks, the last signature that was read is that one."""
    settling, read = Settling((1,)), (1,)
    for look in [*looks, last, last]:
        if settling.look(look):
            read = look
    assert read == last


class Seen:
    """Collects what a source hands on."""

    def __init__(self):
        self.contents: list[tuple[bytes, bool]] = []
        self.errors: list[str] = []

    async def content(self, raw, forced):
        """Take a content."""
        self.contents.append((raw, forced))

    async def error(self, error):
        """Take an error."""
        self.errors.append(str(error))

    async def wait(self, holds):
        """Wait for what the file system tells nobody."""
        while not holds():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def watching(path):
    """Run a source on a path; its first content or error was handed on."""
    seen = Seen()
    source = FileSource(path, period_s=PERIOD_S)
    task = asyncio.create_task(source.run(seen.content, seen.error))
    try:
        await seen.wait(lambda: seen.contents or seen.errors)
        yield seen, source
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def in_place(path):
    """Write over the file."""
    path.write_text("new")


def renamed(path):
    """Rename another file over it."""
    beside = path.with_name("beside")
    beside.write_text("new")
    beside.replace(path)


def renamed_with_the_same_time_and_size(path):
    """Rename another file over it that only its inode tells apart."""
    beside, old = path.with_name("beside"), path.stat()
    beside.write_text("new")
    os.utime(beside, ns=(old.st_atime_ns, old.st_mtime_ns))
    beside.replace(path)


def removed_and_made(path):
    """Remove it and make it again."""
    path.unlink()
    path.write_text("new")


@pytest.mark.parametrize(
    "replace", [in_place, renamed, renamed_with_the_same_time_and_size, removed_and_made]
)
async def test_every_way_of_replacing_is_seen(tmp_path, replace):
    """Whatever an editor or a deployment does, the new content is handed on once."""
    path = tmp_path / "lb.yaml"
    path.write_text("old")
    async with watching(path) as (seen, _):
        replace(path)
        await seen.wait(lambda: (b"new", False) in seen.contents)
    assert [raw for raw, _ in seen.contents] == [b"old", b"new"]


async def test_symbolic_links_above_the_file_are_followed(tmp_path):
    """A release directory that is swapped by a link, as Kubernetes does it, is a change of the file."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lb.yaml").write_text(name)
    current = tmp_path / "current"
    current.symlink_to("one")
    async with watching(current / "lb.yaml") as (seen, _):
        (tmp_path / "next").symlink_to("two")
        (tmp_path / "next").replace(current)
        await seen.wait(lambda: len(seen.contents) > 1)
    assert [raw for raw, _ in seen.contents] == [b"one", b"two"]


async def test_same_content_is_handed_on_once(tmp_path):
    """A touched file is no change; forcing hands it on all the same."""
    path = tmp_path / "lb.yaml"
    path.write_text("same")
    async with watching(path) as (seen, source):
        path.write_text("same")
        source.force()
        await seen.wait(lambda: len(seen.contents) > 1)
    assert seen.contents == [(b"same", False), (b"same", True)]


async def test_missing_file_is_an_error_and_its_return_is_a_content(tmp_path):
    """A file that went is said so once; when it returns it counts, even with the same content."""
    path = tmp_path / "lb.yaml"
    path.write_text("old")
    async with watching(path) as (seen, _):
        path.unlink()
        await seen.wait(lambda: seen.errors)
        path.write_text("old")
        await seen.wait(lambda: len(seen.contents) > 1)
    assert len(seen.errors) == 1
    assert "no such file" in seen.errors[0]


async def test_fifo_is_refused_without_waiting_for_its_writer(tmp_path):
    """What is no regular file is an error at once."""
    path = tmp_path / "lb.yaml"
    os.mkfifo(path)
    async with watching(path) as (seen, _):
        assert "is not a regular file" in seen.errors[0]


async def test_directory_in_its_place_is_an_error_until_a_file_returns(tmp_path):
    """Docker makes a directory of a bind mount whose source is missing: that ends nobody."""
    path = tmp_path / "lb.yaml"
    path.mkdir()
    async with watching(path) as (seen, _):
        assert "is a directory" in seen.errors[0]
        path.rmdir()
        path.write_text("new")
        await seen.wait(lambda: seen.contents)
        path.unlink()
        path.mkdir()
        await seen.wait(lambda: len(seen.errors) > 1)
        shutil.rmtree(path)
    assert seen.contents == [(b"new", False)]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["directory", "fifo"])
def test_what_cannot_be_read_leaves_no_descriptor_open(tmp_path, make):
    """The daemon looks twice a second, for months."""
    path = tmp_path / "lb.yaml"
    make(path)
    with pytest.raises(InputError, match="is "):
        read_file(path)
    # The listing's own descriptor is gone by the time that it is asked for.
    handles = [handle for handle in Path("/proc/self/fd").iterdir() if handle.is_symlink()]
    assert path not in [handle.readlink() for handle in handles]


async def test_file_that_is_too_large_is_refused(tmp_path):
    """More than 1 MiB is never read into memory as a whole."""
    path = tmp_path / "lb.yaml"
    path.write_bytes(b"#" * (1024 * 1024 + 1))
    async with watching(path) as (seen, _):
        assert "is larger than 1 MiB" in seen.errors[0]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ESTALE, errno.EIO])
async def test_file_that_cannot_be_read_for_a_moment_is_read_again(tmp_path, monkeypatch, number):
    """Nothing about the file changes when a descriptor is free again: it is tried until it can be read, and said once."""
    path = tmp_path / "lb.yaml"
    path.write_text("new")
    tries = []

    def fails(given, *arguments):
        if given == path and len(tries) < 5:
            tries.append(given)
            raise OSError(number, os.strerror(number))
        return opened(given, *arguments)

    opened = os.open
    monkeypatch.setattr(os, "open", fails)
    async with watching(path) as (seen, _):
        await seen.wait(lambda: seen.contents)
    assert (len(tries), seen.contents) == (5, [(b"new", False)])
    assert seen.errors == [f"{path}: {os.strerror(number).lower()}"]


def test_a_file_is_called_by_its_path(tmp_path):
    """Files that it names are looked for beside it."""
    path = tmp_path / "lb.yaml"
    home = FileSource(path)
    assert (home.word, home.name, home.place, home.folder) == ("file", f"file {path}", str(path), tmp_path)
