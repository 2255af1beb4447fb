"""Counts that several workers see: sums, and nothing left of a worker that has ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.ipc import shared_counters
from dataplane.ipc.shared_counters import (
    BUCKETS,
    CLIENTS,
    COLUMNS,
    EVENTS,
    HELD,
    WAITING,
    WANTED,
    Board,
    CounterBoard,
    buckets_of,
)


@pytest.fixture
def board() -> Iterator[CounterBoard]:
    """Room for four workers."""
    board = CounterBoard(4)
    yield board
    board.close()


def test_rows_are_given_out_from_the_lowest(board: CounterBoard) -> None:
    """Readers look at the rows in use and no further; all taken is None."""
    assert [board.take_row() for _ in range(5)] == [0, 1, 2, 3, None]
    assert board.head[0] == 4
    board.free_row(3)
    board.free_row(1)
    assert board.head[0] == 3
    assert board.take_row() == 1


def test_a_freed_row_is_wiped(board: CounterBoard) -> None:
    """What a worker had counted goes with it, and nobody else's numbers do."""
    rows = [board.take_row(), board.take_row()]
    column = board.column(board.assign({"web"})["web"])
    bucket = board.bucket(7)
    for row in rows:
        assert row is not None
        column[row] = bucket[row] = 5
    board.free_row(0)
    assert (list(column), list(bucket)) == ([0, 5, 0, 0], [0, 5, 0, 0])
    assert board.total("web") == 5


def test_a_freed_row_has_no_parts(board: CounterBoard) -> None:
    """What its pools held and wanted, and that it was there, is gone with a worker; the others' cells stay."""
    rows = [board.take_row(), board.take_row()]
    columns = board.assign({"web", ("web", "a")})
    parts = [board.part(kind, number) for kind in (HELD, EVENTS, WANTED) for number in columns.values()]
    for count, cells in enumerate(parts, 1):
        for row in rows:
            assert row is not None
            cells[row] = board.present[row] = count
    board.free_row(0)
    assert [list(cells) for cells in parts] == [[0, count, 0, 0] for count in range(1, 7)]
    assert list(board.present) == [0, 6, 0, 0]


def test_parts_are_apart(board: CounterBoard) -> None:
    """No two cells are the same, also at the ends of the tables."""
    cells = [board.part(kind, number) for kind in (HELD, EVENTS, WANTED) for number in (0, 1, COLUMNS - 1)]
    cells += [board.column(number) for number in (0, COLUMNS - 1)]
    cells += [board.bucket(0), board.bucket(BUCKETS - 1), board.present]
    number = 0
    for one in cells:
        for row in range(board.rows):
            number += 1
            one[row] = number
    board.rates[0] = board.rates[BUCKETS - 1] = 0.5
    assert [value for one in cells for value in one] == list(range(1, number + 1))


def test_a_column_is_given_out_when_all_its_parts_are_zero(
    board: CounterBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool that still holds something keeps the column of its backend, also when no client is left."""
    monkeypatch.setattr(shared_counters, "COLUMNS", 1)
    number = board.assign({"a"})["a"]
    board.part(HELD, number)[2] = 1
    assert board.assign({"b"}) == {}
    board.part(HELD, number)[2] = 0
    assert board.assign({"b"}) == {"b": number}


def test_columns_stay_and_come_back(board: CounterBoard) -> None:
    """A key keeps its column, also when it returns; another key never gets one in which somebody counts."""
    first = dict(board.assign({"a", "b"}))
    board.column(first["a"])[0] = 1
    second = dict(board.assign({"b", "c"}))
    assert second["b"] == first["b"]
    assert second["c"] not in first.values()
    assert board.assign({"a"})["a"] == first["a"]


@given(service=st.text(), client=st.text())
@settings(deadline=None)
def test_a_client_has_two_different_buckets(service: str, client: str) -> None:
    """Both are in the table, and always the same ones."""
    first, second = buckets_of(service, client)
    assert first != second
    assert 0 <= first < BUCKETS > second >= 0
    assert buckets_of(service, client) == (first, second)


def test_cells_of_a_column_are_shared(board: CounterBoard) -> None:
    """What one worker writes into a column, the other reads there, each kind in cells of its own."""
    one, other = Board(board, 0), Board(board, 1)
    one.cells(7)[one.row] = 1
    for kind in (WAITING, CLIENTS):
        one.part(kind, 7)[one.row] = 2 + kind
    seen = [other.cells(7), other.part(WAITING, 7), other.part(CLIENTS, 7)]
    assert [list(cells) for cells in seen] == [[1, 0, 0, 0], [2, 0, 0, 0], [3, 0, 0, 0]]


def test_without_a_column_nobody_else_sees(board: CounterBoard) -> None:
    """Cells without a column are new ones each time."""
    one = Board(board, 1)
    cells = one.cells(None)
    cells[one.row] = 5
    assert (list(cells), list(one.cells(None)), list(one.part(WAITING, None))) == (
        [0, 5, 0, 0],
        [0] * 4,
        [0] * 4,
    )


def test_only_who_takes_clients_is_present(board: CounterBoard) -> None:
    """A worker says so itself."""
    one = Board(board, 2)
    one.set_present(present=True)
    assert list(board.present) == [0, 0, 1, 0]
    one.set_present(present=False)
    assert list(board.present) == [0, 0, 0, 0]
