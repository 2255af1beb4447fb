"""Backends, services and limits whose counts are the node's, not the worker's; see shared_counters for the theory.

`own` is what this process counts, published with one store; `active` is the sum of all, for limits and balancers. Pools are the
node's, too (`worker.pool`), and so is the length of a queue; in it are this worker's clients only.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeVar

from dataplane.core.admission import Admission, Counts, RateLimiter, WaitQueue
from dataplane.core.spec import BackendSpec, ServiceSpec
from dataplane.ipc.shared_counters import WAITING, Board, buckets_of
from dataplane.net.backend import Backend
from dataplane.net.connect import Observer
from dataplane.net.flow import Flow
from dataplane.net.reactor import Reactor
from dataplane.net.service import Service
from dataplane.worker.client_handoff import ClientBalancer, Siblings
from dataplane.worker.pool import WorkerShare

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


class SharedBackend(Backend):
    """A backend whose `active` is the node's count; `column` as the supervisor has given it out."""

    __slots__ = ("_board", "_column", "_told", "share")

    def __init__(
        self,
        reactor: Reactor,
        spec: BackendSpec,
        service: ServiceSpec,
        board: Board,
        column: int | None = None,
    ) -> None:
        self._board = board
        self._column = column
        self._told = 0
        self.share = WorkerShare(board, column)
        super().__init__(reactor, spec, service, self.share)
        self.cells, self.row = board.cells(column), board.row

    @property
    def active(self) -> int:
        """The node's count, as of now."""
        return sum(self.cells[: self._board.head[0]])

    def has_moved(self) -> bool:
        """Tell whether the count has changed since this was asked last, so that a balancer must look again."""
        told, self._told = self._told, self.active
        return told != self._told

    def use(self, column: int | None) -> None:
        """Count in another column from now on; what is counted moves along."""
        if column != self._column:
            self.cells[self.row] = 0
            self._column = column
            self.cells = self._board.cells(column)
            self.cells[self.row] = self.own
            self.share.use(column)


class SharedService(Service):
    """A service whose `active`, queue, clients and rates are the node's."""

    queue: SharedQueue[Flow]

    def __init__(
        self, reactor: Reactor, spec: ServiceSpec, observer: Observer, board: Board, siblings: Siblings
    ) -> None:
        self._board = board
        super().__init__(reactor, spec, observer)
        self.cells, self.row = board.cells(None), board.row
        self.admission = Admission(
            spec.limits,
            spec.access,
            counts=lambda: SharedCounts(spec.name, board),
            rate=lambda rate: SharedRate(rate, spec.name, board),
        )
        self.queue = SharedQueue(spec.limits.queue, board)
        self.balancer = ClientBalancer(self, board, siblings)

    @property
    def active(self) -> int:
        """The node's count, as of now."""
        return sum(self.cells[: self._board.head[0]])

    def routed(self, flow: Flow, listener: str) -> None:
        """Take a client that was routed here, or hand it over to the worker that has the fewest."""
        if listener and self.balancer.hand_over_routed(flow, listener):
            return
        super().routed(flow, listener)
        self.balancer.publish()

    def use(self, column: int | None) -> None:
        """Count in another column from now on; what is counted moves along."""
        self.cells[self.row] = 0
        self.cells = self._board.cells(column)
        self.cells[self.row] = self.own
        self.queue.use(self._board.part(WAITING, column))
        self.balancer.use(column)
