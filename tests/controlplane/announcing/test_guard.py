"""Two processes that watch each other: whichever dies or hangs, the other one is there to withdraw."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.wait import wait_for

PROGRAM = """
import os, select, sys
sys.path.insert(0, {root!r})
from controlplane.announcing.guard import Guarded
guarded = Guarded({hold}, lambda: os.write(1, b"withdrawn\\n"))
os.write(2, b"%d\\n" % guarded.pid)
while guarded.beat():
    readable, _, _ = select.select([0], [], [], 0.05)
    if readable:
        if not os.read(0, 1):
            guarded.end()
            sys.exit(0)
        import time
        time.sleep(3600)
guarded.kill()
os.write(1, b"alone\\n")
"""
ROOT = Path(__file__).resolve().parents[3]


class Pair:
    """An announcer and its guard: the announcer hangs when it reads a byte, and ends at the end of its input."""

    def __init__(self, hold_s):
        code = textwrap.dedent(PROGRAM).format(root=str(ROOT), hold=hold_s)
        self.announcer = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self.announcer.stderr is not None
        self.guard = int(self.announcer.stderr.readline())

    def said(self):
        """Wait until nobody has the output any more, and return what came."""
        assert self.announcer.stdout is not None
        text = self.announcer.stdout.read()
        self.announcer.wait()
        return text

    def close(self):
        """End both."""
        for pid in (self.announcer.pid, self.guard):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for stream in (self.announcer.stdin, self.announcer.stdout, self.announcer.stderr):
            stream.close()
        self.announcer.wait()


@pytest.fixture
def pair():
    """Two that give up after half a second."""
    made = Pair(0.5)
    yield made
    made.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP, None], ids=["killed", "stopped", "hangs"])
def test_the_announcer_fails(pair, how):
    """The guard withdraws, once, and the announcer does not live on: awake, it would announce again."""
    if how is None:
        pair.announcer.stdin.write("x")
        pair.announcer.stdin.flush()
    else:
        pair.announcer.send_signal(how)
    assert pair.said() == "withdrawn\n"
    assert pair.announcer.returncode == -signal.SIGKILL


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_the_guard_fails(pair, how):
    """The announcer hears no answer any more, and is told so; the guard does not live on."""
    os.kill(pair.guard, how)
    assert pair.said() == "alone\n"
    wait_for(lambda: not Path(f"/proc/{pair.guard}").exists(), "the guard to end")


def test_an_end_in_good_order(pair):
    """The guard ends with the announcer, and has nothing to say."""
    pair.announcer.stdin.close()
    assert pair.said() == ""
    assert pair.announcer.returncode == 0
    wait_for(lambda: not Path(f"/proc/{pair.guard}").exists(), "the guard to end")


def test_the_guard_does_not_end_by_itself(pair):
    """Signals that reach the whole group are the announcer's to handle: without its end the guard goes on."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pair.guard, number)
    pair.announcer.kill()
    assert pair.said() == "withdrawn\n"
