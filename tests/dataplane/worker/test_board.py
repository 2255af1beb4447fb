"""A worker's view of the shared memory: its cells are what the others see, unless there are none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dataplane.ipc.shared_counters import CLIENTS, WAITING, CounterBoard
from dataplane.worker.board import Board


@pytest.fixture
def counters() -> Iterator[CounterBoard]:
    """A table of three rows."""
    board = CounterBoard(3)
    yield board
    board.close()


def test_cells_of_a_column_are_shared(counters: CounterBoard) -> None:
    """What one worker writes into a column, the other reads there, each kind in cells of its own."""
    one, other = Board(counters, 0), Board(counters, 1)
    one.cells(7)[one.row] = 1
    for kind in (WAITING, CLIENTS):
        one.part(kind, 7)[one.row] = 2 + kind
    seen = [other.cells(7), other.part(WAITING, 7), other.part(CLIENTS, 7)]
    assert [list(cells) for cells in seen] == [[1, 0, 0], [2, 0, 0], [3, 0, 0]]


def test_without_a_column_nobody_else_sees(counters: CounterBoard) -> None:
    """Cells without a column are new ones each time."""
    board = Board(counters, 1)
    cells = board.cells(None)
    cells[board.row] = 5
    assert (list(cells), list(board.cells(None)), list(board.part(WAITING, None))) == (
        [0, 5, 0],
        [0] * 3,
        [0] * 3,
    )


def test_only_who_takes_clients_is_present(counters: CounterBoard) -> None:
    """A worker says so itself."""
    board = Board(counters, 2)
    board.set_present(present=True)
    assert list(counters.present) == [0, 0, 1]
    board.set_present(present=False)
    assert list(counters.present) == [0, 0, 0]
