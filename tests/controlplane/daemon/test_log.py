"""The daemon's log: it never stops the daemon, says what it has lost, and what goes out of order, once each."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from controlplane.core.backoff import Backoff
from controlplane.daemon.log import Log, Noticing, kept, plane_faults, source_faults
from controlplane.dataplanes.pusher import Pusher
from controlplane.errors import LateError, UnreachableError
from tests.controlplane.fakes import FakeDataPlane
from tests.controlplane.operations.commands import Control, Daemon
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


async def test_work_that_raises_begins_again():
    """Each failure is told with its traceback."""
    told, tries = [], []

    async def work():
        tries.append(1)
        if len(tries) < 3:
            raise ZeroDivisionError("of ours")

    await kept("looking", work, lambda message, **more: told.append((message, more)), Backoff(0.001))
    assert len(tries) == 3
    assert ["looking failed" in message for message, _ in told] == [True, True]
    assert "ZeroDivisionError: of ours" in told[0][1]["traceback"]


_BUG = """
import os, sys
if "run" in sys.argv:
    import MODULE

    def broken(self):
        raise ZeroDivisionError("of ours")

    MODULE.KIND.METHOD = broken
"""


@pytest.fixture
def failing(tmp_path: Path):
    """Start a daemon with a bug in one method."""
    started = []

    def start(module: str, kind: str, method: str) -> Daemon:
        text = _BUG.replace("MODULE", module).replace("KIND", kind).replace("METHOD", method)
        (tmp_path / "sitecustomize.py").write_text(text)
        daemon = Daemon(Control(Path(folder)))
        daemon._environment["PYTHONPATH"] = str(tmp_path)
        started.append(daemon)
        daemon._spawn()
        return daemon

    with TemporaryDirectory(prefix="lb-test-") as folder:
        yield start
        for daemon in started:
            daemon.close()


def bug(daemon: Daemon) -> dict[str, str]:
    """Return the line of the log that tells of it."""
    lines = [line for line in daemon.output.splitlines() if "a bug of ours" in line]
    line: dict[str, str] = json.loads(lines[0])
    return line


def test_the_daemon_goes_on_without_what_only_shows(failing):
    """Its API answers, and it ends in good order."""
    daemon = failing("controlplane.daemon.status", "Observer", "run")
    wait_for(lambda: "a bug of ours" in daemon.output and daemon.ready(), "the bug to be told")
    assert "begins again in 1 s" in bug(daemon)["event"]
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait() == 0


def told(*looks, **options):
    """Return what is logged over these looks."""
    lines: list[str] = []
    noticing = Noticing(lines.append, **options)
    for look in looks:
        noticing.take(look)
    return lines


def test_each_change_is_one_line():
    """The same fault in other words is no news; another kind of fault is, and so is its end."""
    faults = [None, ("late", "no answer"), ("late", "still none"), ("refused", "no"), None, None]
    assert told(*({"x": fault} for fault in faults)) == ["x: no answer", "x: no", "x: in order again"]


def test_comings_and_goings_are_told_of_whom_they_matter():
    """A data plane that stops takes its socket along: it has gone, and is found again."""
    looks = ({"a": None}, {}, {"a": None}, {"a": None, "b": ("late", "no answer")})
    assert told(*looks, comings=True) == ["a: found", "a: gone", "a: found", "b: no answer"]
    assert told(*looks) == ["b: no answer"]


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ({"state": "ok", "last_error": None}, None),
        ({"state": "stale", "last_error": None, "note": "what anna applied holds"}, None),
        ({"state": "stale", "last_error": "unreachable"}, ("stale", "unreachable")),
        ({"state": "denied", "last_error": "status 403"}, ("denied", "status 403")),
        (
            {"state": "held", "last_error": None, "held": {"count": 4}},
            ("held", "4 that it no longer lists are kept"),
        ),
    ],
)
def test_faults_of_sources(source, fault):
    """What has not answered yet, and what an operator wants, is none."""
    assert source_faults([{"name": "s", **source}]) == {"s": fault}


async def test_faults_of_data_planes():
    """Nothing is said of one that nobody has looked at; late and gone are one kind, a refusal is another."""

    def pusher(plane):
        return Pusher(plane, on_ahead=print, on_change=seen.set, jitter=lambda: 0.0, clock=lambda: 0.0)

    seen = asyncio.Event()
    plane = FakeDataPlane("a")
    one = pusher(plane)
    assert plane_faults([one]) == {}
    plane.away = True
    task = asyncio.create_task(one.run())
    await seen.wait()
    assert plane_faults([one]) == {"data plane a": ("unreachable", "unreachable: nobody listens")}
    seen.clear()
    plane.away = False
    one.wake()
    await seen.wait()
    assert plane_faults([one]) == {"data plane a": None}
    task.cancel()
    one.error = LateError("a", 2.0)
    assert plane_faults([one])["data plane a"] == ("unreachable", "no answer within 2 s")
    one.error = UnreachableError("a", "x")
    assert plane_faults([one])["data plane a"] == ("unreachable", "unreachable: x")
