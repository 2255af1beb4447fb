"""Counts that several workers see: sums, and nothing left of a worker that has ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.reasons import CloseReason
from dataplane.core.spec import AccessSpec, LimitsSpec
from dataplane.ipc import shared_counters
from dataplane.ipc.shared_counters import (
    BUCKETS,
    COLUMNS,
    EVENTS,
    HELD,
    WANTED,
    CounterBoard,
    buckets_of,
)
from dataplane.worker import shared
from dataplane.worker.board import Board


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


def limits(**given: float) -> LimitsSpec:
    """Limits with everything else off."""
    values = {"connections": 0, "per_backend": 0, "per_client": 0, "client_rate": 0.0, "queue": 0}
    return LimitsSpec(**{**values, "queue_timeout_s": 0.0, "drop_abandoned": False, **given})  # type: ignore[arg-type]


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
        shared._SharedAdmission(_Spec(**given), Board(board, row))  # type: ignore[arg-type]
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


# -- queues -------------------------------------------------------------------------------------------


def queues(board: CounterBoard, size: int) -> list[shared.SharedQueue[str]]:
    """The queue of the one service in two workers."""
    made = []
    for _ in range(2):
        row = board.take_row()
        assert row is not None
        mine = Board(board, row)
        queue: shared.SharedQueue[str] = shared.SharedQueue(size, mine)
        queue.use(mine.waiting(board.assign({"web"})["web"]))
        made.append(queue)
    return made


def test_a_queue_is_as_long_as_all_workers_together(board: CounterBoard) -> None:
    """Who waits anywhere counts until it is served or gives up; each worker serves its own."""
    one, other = queues(board, 3)
    assert [one.push("a"), other.push("b"), other.push("c"), one.push("d"), other.push("d")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert (len(one), len(other)) == (1, 2)
    assert other.pop() == "b"
    assert one.push("d")
    assert not other.push("e")
    assert one.discard("a")
    assert not one.discard("a")
    assert other.push("e")
    one.reconfigure(4)
    assert (one.push("f"), one.peek()) == (True, "d")


def test_a_dead_workers_queue_does_not_count(board: CounterBoard) -> None:
    """Those who waited in a worker that was killed leave their places."""
    one, other = queues(board, 1)
    assert one.push("a")
    assert not other.push("b")
    board.free_row(0)
    assert other.push("b")


ACTIONS = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(["push", "pop", "discard"]), st.integers(0, 9)), max_size=40
)


@given(actions=ACTIONS, size=st.integers(0, 4))
@settings(deadline=None)
def test_queues_together_are_never_too_long(actions: list[tuple[int, str, int]], size: int) -> None:
    """In any order of events there wait no more than `limits.queue`, and one is refused only if as many do."""
    board = CounterBoard(4)
    both = queues(board, size)
    for worker, what, number in actions:
        queue, item = both[worker], str(number)
        waiting = sum(map(len, both))
        if what == "pop":
            queue.pop()
        elif what == "discard":
            queue.discard(item)
        elif item not in queue._waiting:
            assert queue.push(item) is (waiting < size)
        assert sum(map(len, both)) <= size
    board.close()
