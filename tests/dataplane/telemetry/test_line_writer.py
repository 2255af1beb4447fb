"""Lines through a thread of their own, and when it is told that some are lost."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.telemetry.line_writer import LOOK_S, QUIET_S, SLOW, LineSink, LossWatch, open_sink
from tests.support.users import SERVICE, needs_two_users, owner
from tests.support.wait import wait_for


@pytest.fixture
def pipe():
    """A pipe, both ends."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_in_order(pipe):
    """Every line arrives, in the order of writing, before `close` returns."""
    reader, writer = pipe
    sink = LineSink(writer)
    lines = [f"line {number}\n".encode() for number in range(1000)]
    for line in lines:
        sink.write(line)
    sink.close()
    assert os.read(reader, 1 << 20) == b"".join(lines)
    assert sink.dropped == 0


def test_nobody_reads(pipe):
    """A full pipe blocks neither `write` nor `close`; what does not fit is dropped and counted."""
    reader, writer = pipe
    sink = LineSink(writer, capacity=10)
    for _ in range(10_000):
        sink.write(b"x" * 99 + b"\n")
    assert sink.dropped > 0
    sink.close(timeout_s=0.05)
    got = bytearray()
    os.set_blocking(reader, False)

    def drained():
        try:
            got.extend(os.read(reader, 1 << 20))
        except BlockingIOError:
            return not any(thread.name == f"lines-{writer}" for thread in threading.enumerate())
        return False

    wait_for(drained, "the thread to end once somebody reads")
    assert len(got) == (10_000 - sink.dropped) * 100, "whole lines, and each is either there or counted"


class Small:
    """A disk that has room for so many bytes; it takes what fits, as file systems do."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, fd: int, data: memoryview) -> int:
        """Write what fits."""
        fits = min(self.room, len(data))
        if data and not fits:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= fits
        return os.write(fd, data[:fits])


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=8), min_size=1, max_size=6),
    st.lists(st.integers(0, 120), min_size=1, max_size=6),
    st.booleans(),
)
def test_a_full_disk(batches, rooms, append):
    """However little fits, the file has whole lines only, in order, and each line is there or counted."""
    with tempfile.NamedTemporaryFile() as file:
        disk, told = Small(0), []
        mode = os.O_APPEND if append else 0
        sink = LineSink(os.open(file.name, os.O_WRONLY | mode), write=disk.write)
        sink.close()  # the thread has gone: batches are as the test has them
        sink._fd = os.open(file.name, os.O_WRONLY | mode)
        for number, sizes in enumerate(batches):
            disk.room = rooms[number % len(rooms)]
            lines = [f"{number}.{index}:".encode() + b"x" * size + b"\n" for index, size in enumerate(sizes)]
            told += lines
            sink._write(lines)
        os.close(sink._fd)
        content = Path(file.name).read_bytes()
    there = content.splitlines(keepends=True)
    assert all(line in told for line in there)
    assert [line for line in told if line in there] == there
    assert (len(there), sink.written + sink.dropped) == (sink.written, len(told))


def test_a_full_disk_that_is_shared(tmp_path):
    """What another process has written behind a half line is not cut off; the next line begins on one of its own."""
    path = tmp_path / "log"
    other = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    disk = Small(10)

    def write(fd, data):
        try:
            return disk.write(fd, data)
        except OSError:
            os.write(other, b"theirs\n")
            raise

    sink = LineSink(os.open(path, os.O_WRONLY | os.O_APPEND), write=write)
    sink.write(b"first\n")
    wait_for(lambda: sink.written == 1, "the first line")
    sink.write(b"second\n")
    wait_for(lambda: sink.dropped == 1, "the loss")
    disk.room = 100
    sink.write(b"third\n")
    sink.close()
    os.close(other)
    assert path.read_bytes() == b"first\nsecotheirs\n\nthird\n"


def test_a_torn_line_in_a_pipe(pipe):
    """It cannot be taken back: what comes next begins on a line of its own, and the half one is counted as lost."""
    reader, writer = pipe
    disk = Small(3)
    sink = LineSink(os.dup(writer), write=disk.write)
    sink.write(b"first\n")
    wait_for(lambda: sink.dropped == 1, "the loss")
    assert sink.trouble == "No space left on device"
    disk.room = 100
    sink.write(b"second\n")
    sink.close()
    assert os.read(reader, 100) == b"fir\nsecond\n"
    assert (sink.written, sink.dropped) == (1, 1)


def test_the_reader_leaves(pipe):
    """A pipe whose reader has gone costs lines, and no exception."""
    sink = LineSink(os.dup(pipe[1]))
    os.close(pipe[0])
    try:
        sink.write(b"lost\n")
        wait_for(lambda: sink.dropped, "the loss to be counted")
        sink.write(b"lost, too\n")
        sink.close()
        assert sink.dropped == 2
    finally:
        os.dup2(pipe[1], pipe[0])  # so that the fixture has something to close


def test_a_descriptor_that_somebody_made_non_blocking(pipe):
    """A terminal is shared, and others may switch it: no line is lost for it."""
    reader, writer = pipe
    os.set_blocking(writer, False)
    sink = LineSink(writer)
    for _ in range(3000):
        sink.write(b"x" * 99 + b"\n")
    got = 0
    while got < 300_000:
        got += len(os.read(reader, 1 << 20))
    sink.close()
    assert sink.dropped == 0


class TestOpen:
    """`--access-log`."""

    def test_off(self):
        """Nothing is opened."""
        assert open_sink("off") is None

    def test_a_file(self, tmp_path):
        """A file is appended to, and not for everybody to read."""
        path = tmp_path / "access.log"
        path.write_text("before\n")
        path.chmod(0o640)
        sink = open_sink(str(path))
        sink.write(b"after\n")
        sink.close()
        assert path.read_text() == "before\nafter\n"

    def test_a_pipe_without_a_reader(self, tmp_path):
        """Opening does not wait; whoever reads later gets what was written meanwhile."""
        path = tmp_path / "pipe"
        os.mkfifo(path)
        before = time.monotonic()
        sink = open_sink(str(path))
        assert time.monotonic() - before < 5
        sink.write(b"line\n")
        with path.open("rb", buffering=0) as reader:
            assert reader.read(100) == b"line\n"
        sink.close()

    def test_a_place_that_does_not_exist(self, tmp_path):
        """An error, at once."""
        with pytest.raises(OSError, match="No such file"):
            open_sink(str(tmp_path / "missing" / "access.log"))


class TestReopen:
    """Going on in another file."""

    def test_in_order(self, tmp_path):
        """What was written before goes to the file as it was, what comes after to the new one."""
        path = tmp_path / "access.log"
        sink = open_sink(str(path))
        for number in range(1000):
            sink.write(f"{number}\n".encode())
        path.rename(tmp_path / "old")
        assert sink.reopen()
        sink.write(b"after\n")
        sink.close()
        assert (tmp_path / "old").read_text() == "".join(f"{number}\n" for number in range(1000))
        assert path.read_text() == "after\n"
        assert sink.dropped == 0

    @pytest.mark.usefixtures("no_leaks")
    def test_the_old_one_is_closed(self, tmp_path):
        """Rotation for years costs no descriptor but the last one's, which the process has to its end."""
        sink = open_sink(str(tmp_path / "access.log"))
        for _ in range(20):
            sink.reopen()
        sink.close()
        os.close(sink._fd)

    def test_there_is_none(self, pipe):
        """A descriptor that has no name is kept."""
        sink = LineSink(os.dup(pipe[1]))
        assert not sink.reopen()
        sink.write(b"still\n")
        sink.close()
        assert os.read(pipe[0], 100) == b"still\n"

    def test_it_cannot_be_opened(self, tmp_path):
        """The old file is written on."""
        folder = tmp_path / "log"
        folder.mkdir()
        sink = open_sink(str(folder / "access.log"))
        folder.rename(tmp_path / "gone")
        with pytest.raises(OSError, match="No such file"):
            sink.reopen()
        sink.write(b"still\n")
        sink.close()
        assert (tmp_path / "gone" / "access.log").read_text() == "still\n"


def test_lines_gather():
    """Lines of one moment are written together, and `close` does not wait for more of them."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        sink = LineSink(theirs.detach(), linger_s=3600.0)
        for number in range(100):
            sink.write(f"{number}\n".encode())
        sink.close(10.0)
        assert ours.recv(1 << 16) == "".join(f"{number}\n" for number in range(100)).encode()
        os.close(sink._fd)


@needs_two_users
def test_the_file_is_the_folders_owners(tmp_path):
    """An access log that root opened first can be written by the service; a link's target is left alone."""
    os.chown(tmp_path, SERVICE.pw_uid, SERVICE.pw_gid)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("access.log", "link"):
        sink = open_sink(str(tmp_path / name))
        sink.write(b"line\n")
        sink.close()
    assert (tmp_path / "access.log").read_bytes() == b"line\n"
    assert owner(tmp_path / "access.log") == SERVICE.pw_name
    assert owner(tmp_path / "elsewhere") == "root"


# -- when lines are lost ------------------------------------------------------------------------------


class Watched:
    """A log's numbers, a watch, and what it tells."""

    def __init__(self, path=None):
        self.sink = SimpleNamespace(dropped=0, written=0, path=path, trouble="")
        self.told = []
        reactor = SimpleNamespace(wheel=SimpleNamespace(at=lambda _watch, _when: None))
        self.watch = LossWatch(
            "access log", self.sink, reactor, lambda kind, **fields: self.told.append((kind, fields))
        )
        self.now = 0.0

    def look(self, *, lost=0, written=0, times=1):
        """Let a second pass with these numbers, so many times; return what was told."""
        self.told.clear()
        for _ in range(times):
            self.now += LOOK_S
            self.sink.dropped += lost
            self.sink.written += written
            self.watch.on_timer(self.now)
        return list(self.told)


@pytest.fixture
def log():
    """One without a file."""
    return Watched()


def test_nothing_is_lost(log):
    """There is nothing to tell."""
    assert log.look(written=9, times=100) == []


def test_a_full_disk_is_told_once_with_its_cause():
    """And its end, when lines have been written for some seconds, with how many were lost altogether."""
    log = Watched("/var/log/access.log")
    log.sink.trouble = "No space left on device"
    (lost,) = log.look(lost=3, times=50)
    assert lost == (
        "log_lines_lost",
        {"log": "access log", "path": "/var/log/access.log", "cause": "No space left on device", "lines": 3},
    )
    assert log.look(times=100) == [], "nothing was written: the disk may be full still"
    (again,) = log.look(written=1, times=int(QUIET_S / LOOK_S) + 1)
    assert again == ("log_written_again", {"log": "access log", "lines": 150})
    assert log.look(written=1, times=100) == []


def test_a_slow_reader_takes_and_loses_in_turns(log):
    """That is one trouble, not one a second; without an error of a write it is the reader's."""
    told = [event for _ in range(50) for event in (*log.look(lost=7), *log.look(written=5))]
    assert told == [("log_lines_lost", {"log": "access log", "cause": SLOW, "lines": 7})]
    told = log.look(written=5, times=10)
    assert told == [("log_written_again", {"log": "access log", "lines": 350})]


def test_the_next_time_it_is_told_again(log):
    """With the numbers of that time."""
    log.look(lost=2)
    log.look(written=1, times=10)
    assert log.look(lost=4) == [("log_lines_lost", {"log": "access log", "cause": SLOW, "lines": 4})]
    assert log.look(written=1, times=10) == [("log_written_again", {"log": "access log", "lines": 4})]
