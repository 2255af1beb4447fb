"""When it is told that lines are lost, and that they are written again."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dataplane.telemetry.lost_lines import LOOK_S, QUIET_S, SLOW, LossWatch


class Watched:
    """A log's numbers, a watch, and what it tells."""

    def __init__(self, path=None):
        self.sink = SimpleNamespace(dropped=0, written=0, path=path, trouble="")
        self.told = []
        self.watch = LossWatch(
            {"access log": self.sink, "log": None}, lambda kind, **fields: self.told.append((kind, fields))
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
