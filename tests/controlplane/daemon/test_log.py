"""The daemon's log: it never stops the daemon, and says what it has lost."""

from __future__ import annotations

import errno
import json
import os

import pytest

from controlplane.daemon.log import Log
from tests.support.wait import wait_for


@pytest.fixture
def pipe():
    """A pipe, both ends."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


class Disk:
    """A disk that has room for so many bytes; it takes what fits, as file systems do."""

    def __init__(self, room):
        self.room = room

    def write(self, fd, data):
        """Write what fits."""
        fits = min(self.room, len(data))
        if not fits:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= fits
        return os.write(fd, data[:fits])


def events(text):
    """Return what whole lines say; None for a torn one."""
    found = []
    for line in filter(None, text.decode().split("\n")):
        try:
            found.append(json.loads(line)["event"])
        except ValueError:
            found.append(None)
    return found


def test_lines_are_written_in_order(pipe):
    """All of them, before `close` returns."""
    log = Log(pipe[1])
    for number in range(100):
        log(f"line {number}")
    log.close()
    assert events(os.read(pipe[0], 1 << 16)) == [f"line {number}" for number in range(100)]
    assert log.trouble is None


def test_a_full_disk_is_said_and_over_when_there_is_room(pipe):
    """What could not be written is counted, and told before the next line, which begins on a line of its own."""
    disk = Disk(20)
    log = Log(pipe[1], write=disk.write)
    log("first")
    log("second")
    lost = "2 lines of the daemon's log are lost: No space left on device"
    wait_for(lambda: log.trouble == lost, "both to be lost")
    disk.room = 1 << 16
    log("third")
    log("fourth")
    log.close()
    assert events(os.read(pipe[0], 1 << 16)) == [None, lost, "third", "fourth"]
    assert log.trouble is None


def test_a_reader_that_does_not_read_holds_up_nobody(pipe):
    """Lines beyond what may wait are lost, counted, and told when it reads again."""
    log = Log(pipe[1], capacity=4)
    for number in range(10_000):
        log(f"line {number} " + "x" * 100)
    assert "lines of the daemon's log are lost: whoever reads it is too slow" in log.trouble
    log.close(timeout_s=0.05)
    os.set_blocking(pipe[0], False)
    text = b""

    def told():
        nonlocal text
        try:
            text += os.read(pipe[0], 1 << 16)
        except BlockingIOError:
            return log.trouble is None
        return False

    wait_for(told, "it to be told")
    assert any("are lost" in event for event in events(text))
