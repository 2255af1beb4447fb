"""Backends, services and limits that two workers count together."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.admission import Admission
from dataplane.core.reasons import CloseReason
from dataplane.core.spec import AccessSpec, LimitsSpec
from dataplane.ipc.shared_counters import WAITING, Board, CounterBoard
from dataplane.net.reactor import Reactor
from dataplane.worker.client_handoff import Siblings
from dataplane.worker.shared import SharedBackend, SharedCounts, SharedQueue, SharedRate, SharedService
from tests.dataplane.net.rig import count, spec

WANTED = spec(backends=["127.0.0.1:2"])


@pytest.fixture
def boards() -> Iterator[tuple[Board, Board]]:
    """Two workers' boards."""
    counters = CounterBoard(2)
    rows = [counters.take_row() for _ in range(2)]
    assert rows == [0, 1]
    yield Board(counters, 0), Board(counters, 1)
    counters.close()


def make(kind: str, board: Board) -> Any:
    """Make a service or a backend that counts where everybody does."""
    reactor = Reactor(SimpleNamespace(), 1024)  # type: ignore[arg-type]
    if kind == "backend":
        return SharedBackend(reactor, WANTED.backends[0], WANTED, board, 3)
    service = SharedService(reactor, WANTED, SimpleNamespace(), board, Siblings())  # type: ignore[arg-type]
    service.use(3)
    return service


@pytest.mark.parametrize("kind", ["backend", "service"])
def test_who_enters_here_is_active_everywhere(kind: str, boards: tuple[Board, Board]) -> None:
    """Each counts its own, and sees the sum."""
    one, other = (make(kind, each) for each in boards)
    for counted in (one, one, other):
        count(counted, 1)
    assert (one.own, other.own, one.active, other.active) == (2, 1, 3, 3)
    count(one, -1)
    assert (one.own, other.active) == (1, 2)


@pytest.mark.parametrize("kind", ["backend", "service"])
def test_what_is_counted_moves_along(kind: str, boards: tuple[Board, Board]) -> None:
    """In another column nothing is lost, and nothing is left in the old one; without a column each is alone."""
    one, other = (make(kind, each) for each in boards)
    count(one, 1)
    count(other, 1)
    one.use(7)
    assert (one.active, other.active) == (1, 1)
    other.use(7)
    assert (one.active, other.active) == (2, 2)
    one.use(None)
    count(one, 1)
    assert (one.own, one.active, other.active) == (2, 2, 1)
    count(other, -1)


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


# -- as services ask it -------------------------------------------------------------------------------


@pytest.fixture
def board() -> Iterator[CounterBoard]:
    """Room for four workers."""
    board = CounterBoard(4)
    yield board
    board.close()


def limits(**given: float) -> LimitsSpec:
    """Limits with everything else off."""
    values = {"connections": 0, "per_backend": 0, "per_client": 0, "client_rate": 0.0, "queue": 0}
    return LimitsSpec(**{**values, "queue_timeout_s": 0.0, "drop_abandoned": False, **given})  # type: ignore[arg-type]


def admissions(board: CounterBoard, **given: float) -> list[Admission]:
    """The admission of the one service in two workers."""
    workers = [Board(board, row) for row in (board.take_row(), board.take_row()) if row is not None]
    return [
        Admission(
            limits(**given),
            AccessSpec((), ()),
            counts=partial(SharedCounts, "web", worker),
            rate=partial(SharedRate, service="web", board=worker),
        )
        for worker in workers
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


def queues(board: CounterBoard, size: int) -> list[SharedQueue[str]]:
    """The queue of the one service in two workers."""
    made = []
    for _ in range(2):
        row = board.take_row()
        assert row is not None
        mine = Board(board, row)
        queue: SharedQueue[str] = SharedQueue(size, mine)
        queue.use(mine.part(WAITING, board.assign({"web"})["web"]))
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
