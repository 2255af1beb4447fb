"""Who may come in, for all workers together: the length of a queue, connections by client, and the rate of a client.

See shared_counters for the theory. In a queue are this worker's clients only; who waits where is each worker's.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeVar

from dataplane.core.admission import Counts, RateLimiter, WaitQueue
from dataplane.ipc.shared_counters import WAITING, buckets_of
from dataplane.worker.board import Board

__all__ = ["SharedCounts", "SharedQueue", "SharedRate"]

T = TypeVar("T", bound=Hashable)


class SharedQueue(WaitQueue[T]):
    """A queue whose length is the node's; in it are this worker's clients."""

    __slots__ = ("_board", "_cells")

    def __init__(self, size: int, board: Board) -> None:
        super().__init__(size)
        self._board = board
        self._cells = board.part(WAITING, None)

    def use(self, cells: memoryview) -> None:
        """Count in other cells from now on."""
        self._cells[self._board.row] = 0
        self._cells = cells
        self._publish()

    def push(self, item: T) -> bool:
        """Put an item at the end; False if as many wait in all workers as may."""
        if sum(self._cells[: self._board.head[0]]) >= self._size:
            return False
        pushed = super().push(item)
        self._publish()
        return pushed

    def pop(self) -> T | None:
        """Take the item that has waited longest here; None: nobody waits here."""
        item = super().pop()
        self._publish()
        return item

    def discard(self, item: T) -> bool:
        """Take out an item wherever it stands; tell whether it waited."""
        waited = super().discard(item)
        self._publish()
        return waited

    def _publish(self) -> None:
        self._cells[self._board.row] = len(self._waiting)


class SharedCounts(Counts):
    """Connections by client: this process's own in full, the node's in buckets."""

    __slots__ = ("_board", "_service")

    def __init__(self, service: str, board: Board) -> None:
        super().__init__()
        self._service = service
        self._board = board

    def opened(self, client: str) -> None:
        """Count a connection."""
        super().opened(client)
        self._add(client, 1)

    def closed(self, client: str) -> None:
        """Count a connection no longer."""
        if super().count(client):
            self._add(client, -1)
        super().closed(client)

    def count(self, client: str) -> int:
        """Return how many connections a client has on this node; never too few."""
        rows = self._board.head[0]
        counters = self._board.counters
        return min(sum(counters.bucket(number)[:rows]) for number in buckets_of(self._service, client))

    def clear(self) -> None:
        """Count none."""
        for client, count in self._counts.items():
            self._add(client, -count)
        super().clear()

    def _add(self, client: str, change: int) -> None:
        for number in buckets_of(self._service, client):
            self._board.counters.bucket(number)[self._board.row] += change


class SharedRate(RateLimiter):
    """Token buckets of the node, in two cells for each client."""

    __slots__ = ("_board", "_service")

    def __init__(self, rate: float, service: str, board: Board) -> None:
        super().__init__(rate)
        self._service = service
        self._board = board

    def admit(self, client: str, now: float) -> bool:
        """Take a token for one new connection, if there is one."""
        rates = self._board.counters.rates
        numbers = buckets_of(self._service, client)
        full_at = max(now, min(rates[number] for number in numbers))
        full_at = min(full_at, now + self._window)  # the rate was raised meanwhile
        if full_at - now > self._tolerance:
            return False
        full_at += self._interval
        for number in numbers:
            rates[number] = max(rates[number], full_at)
        return True
