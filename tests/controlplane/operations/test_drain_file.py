"""What is written down about taking a node out: read by anybody, changed by one at a time, and never taken for granted."""

from __future__ import annotations

import json
import threading

import pytest

from controlplane.core.drain import Drain, Phase, Turn
from controlplane.errors import HeldBackError, StoreError
from controlplane.operations.drain_file import DrainFile


def test_nobody_has_ever_taken_it_out(tmp_path):
    """Without a file, or a directory, it is enabled."""
    assert DrainFile(tmp_path).read() == Drain()
    assert DrainFile(tmp_path / "nowhere" / "at-all").seen() == Drain()


def test_a_turn_is_there_for_the_next_process(tmp_path):
    """Written at once; another object reads it, with whose word it is and since when."""
    turned = DrainFile(tmp_path).turn(Turn.LOWER, "ann")
    assert DrainFile(tmp_path).read() == turned
    assert (turned.phase, turned.by) == (Phase.LOWERED, "ann")
    assert turned.since.endswith("Z")


def test_a_turn_that_changes_nothing_keeps_whose_word_it_is(tmp_path):
    """Whoever goes on with a drain has not begun it."""
    record = DrainFile(tmp_path)
    first = record.turn(Turn.LOWER, "ann")
    assert record.turn(Turn.LOWER, "bob") == first


def test_somebody_has_enabled_it_meanwhile(tmp_path):
    """The next step is refused, and says who did that."""
    record = DrainFile(tmp_path)
    record.turn(Turn.LOWER, "ann")
    record.turn(Turn.ENABLE, "bob")
    with pytest.raises(HeldBackError, match="meanwhile bob has made this node enabled"):
        record.turn(Turn.WITHDRAW, "ann")
    assert record.read().phase is Phase.ENABLED


@pytest.mark.parametrize("raw", [b"", b"{", b'{"version": 1, "phase": "away"}', b"\xff" * 9])
def test_a_damaged_record(tmp_path, raw):
    """It is named, with what mends it; a command's first word does, no other."""
    record = DrainFile(tmp_path)
    record.turn(Turn.LOWER, "ann")
    record.path.write_bytes(raw)
    with pytest.raises(StoreError, match="damaged") as told:
        record.read()
    assert str(record.path) in str(told.value)
    assert "lb-control node enable" in str(record.seen())
    with pytest.raises(StoreError):
        record.turn(Turn.WITHDRAW, "ann")
    assert record.turn(Turn.ENABLE, "ann") == record.read()
    record.path.write_bytes(raw)
    assert record.turn(Turn.LOWER, "ann").phase is Phase.LOWERED
    assert json.loads(record.path.read_bytes())["by"] == "ann"


def test_where_nothing_can_be_written(tmp_path):
    """The error names the place; what was there holds."""
    (tmp_path / "control").write_text("a file")
    with pytest.raises(StoreError, match=r"control/node\.lock"):
        DrainFile(tmp_path).turn(Turn.LOWER, "ann")
    assert DrainFile(tmp_path).read() == Drain()


def test_what_status_tells(tmp_path):
    """Nothing of a node that is enabled; else phase, who and since when, or why that is not known."""
    record = DrainFile(tmp_path)
    assert record.report() is None
    drain = record.turn(Turn.LOWER, "ann")
    assert record.report() == {"phase": "lowered", "by": "ann", "since": drain.since, "error": None}
    record.path.write_text("{")
    told = record.report()
    assert (told["phase"], "damaged" in told["error"]) == (None, True)


def test_one_at_a_time(tmp_path):
    """Of many who go on at once each sees a whole record, and the node goes the whole way."""
    record, errors = DrainFile(tmp_path), []

    def go() -> None:
        try:
            for turn in (Turn.LOWER, Turn.WITHDRAW, Turn.DRAIN, Turn.FINISH):
                record.turn(turn, "ann")
        except (HeldBackError, StoreError) as error:
            errors.append(error)

    threads = [threading.Thread(target=go) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert errors == []
    assert record.read().phase is Phase.DRAINED
