"""What ExaBGP gets to read, whatever happens: by a process of its own, on pipes, as ExaBGP has it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.announcing import exabgp
from controlplane.announcing.exabgp import Announcer
from controlplane.core.announcement import Routes, prefix
from controlplane.core.drain import Drain, Phase
from controlplane.core.readiness import readiness

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from controlplane.announcing.exabgp import Announcer
from controlplane.core.announcement import Routes, prefix
from controlplane.core.drain import Drain, Phase
from controlplane.core.readiness import readiness

def ask():
    word = Path({phase!r}).read_text()
    return readiness({{"a": None if word != "late" else word}}, Drain(Phase(word) if word != "late" else Phase.ENABLED))

def tell(text):
    print(text, file=sys.stderr, flush=True)

sys.exit(Announcer(Routes((prefix("203.0.113.10"),)), ask, tell).run(0.02, 5.0))
"""
WITHDRAW = "withdraw route 203.0.113.10/32 next-hop self\n"
ANNOUNCE = "announce route 203.0.113.10/32 next-hop self med 100\n"
LOWERED = "announce route 203.0.113.10/32 next-hop self med 200\n"


class Started:
    """An announcer, as ExaBGP starts it; `say` sets what its node is."""

    def __init__(self, directory):
        self._phase = directory / "phase"
        self.say("late")
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )

    @property
    def code(self):
        """What it runs."""
        return PROGRAM.format(root=str(ROOT), phase=str(self._phase))

    def say(self, word):
        """Have the node be in a phase, or `late`."""
        beside = self._phase.with_suffix(".new")
        beside.write_text(word)
        beside.rename(self._phase)

    def line(self):
        """Wait for the next command; empty: nobody is left who could give one."""
        return self.process.stdout.readline()

    def answer(self, text):
        """Write to it, as ExaBGP does."""
        self.process.stdin.write(text)
        self.process.stdin.flush()


@pytest.fixture
def started(tmp_path):
    """An announcer of a node that is not ready."""
    made = Started(tmp_path)
    yield made
    made.process.kill()
    made.process.stdin.close()
    made.process.stdout.close()
    made.process.wait()


def test_it_follows_the_node(started):
    """The first word is a withdrawal; then each change, and nothing else."""
    assert started.line() == WITHDRAW
    for word, said in [("enabled", ANNOUNCE), ("lowered", LOWERED), ("late", WITHDRAW), ("lowered", LOWERED)]:
        started.say(word)
        assert started.line() == said


def test_an_error_is_answered_with_the_same_again(started):
    """`done` is not, nor what else ExaBGP may tell."""
    assert started.line() == WITHDRAW
    started.say("enabled")
    assert started.line() == ANNOUNCE
    started.answer('done\n{"type": "state", "error": 1}\n\nerr')
    started.answer("or\n")
    assert started.line() == ANNOUNCE
    started.say("drained")
    assert started.line() == WITHDRAW
    started.answer("error\n")
    assert started.line() == WITHDRAW


def test_told_to_end(started):
    """It withdraws, and ends in good order."""
    assert started.line() == WITHDRAW
    started.say("enabled")
    assert started.line() == ANNOUNCE
    started.process.send_signal(signal.SIGTERM)
    assert started.line() == WITHDRAW
    assert started.line() == ""
    assert started.process.wait() == 0


def test_exabgp_ends(started):
    """The end of its input ends it, and its guard with it."""
    assert started.line() == WITHDRAW
    started.process.stdin.close()
    while started.line():
        pass
    assert started.process.wait() == 0


def test_its_output_is_gone(started):
    """Nobody reads any more: it ends."""
    assert started.line() == WITHDRAW
    started.process.stdout.close()
    started.say("enabled")
    assert started.process.wait() == 0


def test_its_output_takes_nothing(started):
    """It says so, and ends: whoever has started it starts it again."""
    with Path("/dev/full").open("w") as full:
        argv = [sys.executable, "-c", started.code]
        ended = subprocess.run(
            argv, stdin=subprocess.PIPE, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    said = "ExaBGP cannot be told: No space left on device; it starts this command again\n"
    assert (ended.returncode, ended.stderr) == (1, said)


def test_killed(started):
    """The guard's withdrawal is the last word."""
    assert started.line() == WITHDRAW
    started.say("enabled")
    assert started.line() == ANNOUNCE
    started.process.kill()
    assert started.line() == WITHDRAW
    assert started.line() == ""


def test_routes_are_said_again_at_times(monkeypatch):
    """Announced ones, for ExaBGP may have forgotten them; a withdrawal is said once."""
    phase, now, said = Phase.ENABLED, 0.0, []
    monkeypatch.setattr(exabgp.time, "monotonic", lambda: now)
    monkeypatch.setattr(exabgp.os, "write", lambda _, data: said.append(data.decode()))
    routes = Routes((prefix("203.0.113.10"),))
    announcer = Announcer(routes, lambda: readiness({"a": None}, Drain(phase)), lambda _: None)
    for now in (0.0, 5.0, 9.0, 10.0, 15.0):  # noqa: B007 - the clock's
        announcer._round()
    assert said == [ANNOUNCE] * 2
    phase = Phase.DRAINED
    for now in (16.0, 60.0):  # noqa: B007 - the clock's
        announcer._round()
    assert said[2:] == [WITHDRAW]


def test_what_is_logged(monkeypatch):
    """Each change once, with the reason against it."""
    told, planes = [], {"a": None}
    monkeypatch.setattr(os, "write", lambda *_: 0)
    announcer = Announcer(Routes((prefix("203.0.113.10"),)), lambda: readiness(planes, Drain()), told.append)
    for words in (None, None, "late", "late", None):
        planes["a"] = words
        announcer._round()
    assert told == [
        "203.0.113.10/32: preferred",
        "203.0.113.10/32: withdrawn (data_plane: a: late)",
        "203.0.113.10/32: preferred",
    ]
