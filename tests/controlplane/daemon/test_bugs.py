"""A bug of ours in the daemon is told, and ends only what it must."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from controlplane.daemon import bugs
from controlplane.daemon.bugs import kept
from tests.controlplane.operations.commands import Control, Daemon
from tests.support.wait import wait_for


async def test_work_that_raises_begins_again(monkeypatch):
    """Each failure is told with its traceback."""
    monkeypatch.setattr(bugs, "FIRST_PAUSE_S", 0.001)
    told, tries = [], []

    async def work():
        tries.append(1)
        if len(tries) < 3:
            raise ZeroDivisionError("of ours")

    await kept("looking", work, lambda message, **more: told.append((message, more)))
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


def test_a_bug_in_what_decides_ends_it_and_is_told(failing):
    """As a line of the log, with the traceback, and exit code 1."""
    daemon = failing("controlplane.dataplanes.fleet", "Fleet", "_look")
    assert daemon.wait(15) == 1
    told = bug(daemon)
    assert told["event"] == "a bug of ours: the daemon ends; data planes go on"
    assert "ZeroDivisionError: of ours" in told["traceback"]
    assert len(daemon.output.splitlines()) == sum(line.startswith("{") for line in daemon.output.splitlines())
