"""Limits on who may come in, counted by two workers together."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dataplane.ipc.shared_counters import WAITING, CounterBoard
from dataplane.worker.admission import SharedCounts, SharedQueue, SharedRate
from dataplane.worker.board import Board


@pytest.fixture
def boards() -> Iterator[tuple[Board, Board]]:
    """Two workers' boards."""
    counters = CounterBoard(2)
    rows = [counters.take_row() for _ in range(2)]
    assert rows == [0, 1]
    yield Board(counters, 0), Board(counters, 1)
    counters.close()


def test_a_queue_has_one_length(boards: tuple[Board, Board]) -> None:
    """As many wait as may in both together; each serves its own, and a place that comes free is anybody's."""
    one, other = (SharedQueue[str](2, board) for board in boards)
    for queue, board in zip((one, other), boards, strict=True):
        queue.use(board.part(WAITING, 0))
    assert [one.push("a"), other.push("b"), one.push("c"), other.push("d")] == [True, True, False, False]
    assert (one.pop(), one.pop()) == ("a", None)
    assert other.push("d")
    assert other.discard("b")
    assert [len(one), len(other)] == [0, 1]


def test_a_client_is_counted_wherever_it_is(boards: tuple[Board, Board]) -> None:
    """Both see all its connections; who counts none any more leaves the other's."""
    one, other = (SharedCounts("s", board) for board in boards)
    one.opened("10.0.0.1")
    for _ in range(2):
        other.opened("10.0.0.1")
    assert (one.count("10.0.0.1"), other.count("10.0.0.1")) == (3, 3)
    other.closed("10.0.0.1")
    other.closed("10.0.0.9")
    assert one.count("10.0.0.1") == 2
    one.clear()
    assert other.count("10.0.0.1") == 1


def test_a_client_has_one_rate(boards: tuple[Board, Board]) -> None:
    """Its tokens are the same at both, and come back with time."""
    one, other = (SharedRate(2.0, "s", board) for board in boards)
    admitted = [worker.admit("10.0.0.1", 100.0) for worker in (one, other, one, other)]
    assert admitted == [True, True, False, False]
    assert other.admit("10.0.0.2", 100.0)
    assert one.admit("10.0.0.1", 100.5)
