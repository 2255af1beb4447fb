"""Counts that several workers see: sums, and nothing left of a worker that has ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.reasons import CloseReason
from dataplane.core.spec import AccessSpec, LimitsSpec
from dataplane.runtime import shared
from dataplane.runtime.shared_counters import BUCKETS, CounterBoard, buckets_of


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


def limits(**given: float) -> LimitsSpec:
    """Limits with everything else off."""
    values = {"connections": 0, "per_backend": 0, "per_client": 0, "client_rate": 0.0, "queue": 0}
    return LimitsSpec(**{**values, "queue_timeout_s": 0.0, **given})  # type: ignore[arg-type]


class _Spec:
    """As much of a service as admission asks for."""

    def __init__(self, **given: float) -> None:
        self.name = "web"
        self.limits = limits(**given)
        self.access = AccessSpec((), ())


def admissions(board: CounterBoard, **given: float) -> list[shared._SharedAdmission]:
    """The admission of the one service in two workers."""
    workers = [board.take_row(), board.take_row()]
    return [
        shared._SharedAdmission(_Spec(**given), shared.Board(board, row))  # type: ignore[arg-type]
        for row in workers
        if row is not None
    ]


def test_a_client_is_limited_over_all_workers(board: CounterBoard) -> None:
    """A connection counts in every worker from its beginning to its end."""
    one, other = admissions(board, per_client=2)
    for worker in (one, other):
        assert worker.refuse("192.0.2.1", 0.0) is None
        worker.opened("192.0.2.1")
    assert one.refuse("192.0.2.1", 0.0) is other.refuse("192.0.2.1", 0.0) is CloseReason.LIMIT_PER_CLIENT
    assert one.refuse("192.0.2.2", 0.0) is None
    other.closed("192.0.2.1")
    assert one.refuse("192.0.2.1", 0.0) is None


def test_switching_a_limit_off_takes_back_what_was_counted(board: CounterBoard) -> None:
    """A worker's connections are counted while there is a limit, and anew when there is one again."""
    one, other = admissions(board, per_client=1)
    one.opened("192.0.2.1")
    one.reconfigure(limits(), AccessSpec((), ()))
    assert other.refuse("192.0.2.1", 0.0) is None
    one.reconfigure(limits(per_client=1), AccessSpec((), ()))
    one.recount(["192.0.2.1"])
    assert other.refuse("192.0.2.1", 0.0) is CloseReason.LIMIT_PER_CLIENT


def test_a_rate_is_one_for_all_workers(board: CounterBoard) -> None:
    """A client's burst and its rate are the same, however its connections are spread."""
    one, other = admissions(board, client_rate=2.0)
    taken = [worker.refuse("192.0.2.1", 100.0) for worker in (one, other, one, other)]
    assert taken == [None, None, CloseReason.CLIENT_RATE, CloseReason.CLIENT_RATE]
    assert other.refuse("192.0.2.1", 100.5) is None
    assert one.refuse("192.0.2.1", 100.5) is CloseReason.CLIENT_RATE
    assert one.refuse("192.0.2.2", 100.5) is None
