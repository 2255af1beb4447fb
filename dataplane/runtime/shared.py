"""Backends and services whose counts are the node's, not the worker's; see shared_counters for the theory.

`active` is what limits and balancers look at: the node's count. `own` is this process's part of it.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from dataplane.core.admission import Admission, Counts, RateLimiter
from dataplane.net.backend import Backend
from dataplane.net.service import Service
from dataplane.runtime.shared_counters import CounterBoard, buckets_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dataplane.core.spec import AccessSpec, BackendSpec, LimitsSpec, ServiceSpec
    from dataplane.net.reactor import Reactor
    from dataplane.net.service import Observer

__all__ = ["Board", "SharedBackend", "SharedService"]


class Board:
    """The shared memory as one worker uses it: its row, and a private column for what has none."""

    def __init__(self, counters: CounterBoard, row: int) -> None:
        self.counters = counters
        self.row = row
        self.head = counters.head

    def cells(self, column: int | None) -> memoryview:
        """Return a column's cells; without a column, cells that nobody else sees."""
        if column is None:
            return memoryview(array("q", bytes(8 * self.counters.rows)))
        return self.counters.column(column)


class SharedBackend(Backend):
    """A backend whose `active` is the node's count."""

    __slots__ = ("_board", "_cells", "_own", "_seen")

    def __init__(self, reactor: Reactor, spec: BackendSpec, service: ServiceSpec, board: Board) -> None:
        self._board = board
        self._cells = board.cells(None)
        self._own = 0
        self._seen = 0
        super().__init__(reactor, spec, service)

    @property
    def own(self) -> int:
        """This process's part."""
        return self._own

    @property
    def active(self) -> int:
        """The node's count, as of now."""
        self._seen = seen = sum(self._cells[: self._board.head[0]])
        return seen

    @active.setter
    def active(self, value: int) -> None:
        """Take the change since the last look (`active += 1` looks, then sets) as this process's own."""
        self._own += value - self._seen
        self._seen = value
        self._cells[self._board.row] = self._own

    def has_moved(self) -> bool:
        """Tell whether the count has changed since the last look, so that a balancer must look again."""
        return self._seen != self.active

    def use(self, cells: memoryview) -> None:
        """Count in another column from now on; what is counted moves along."""
        row = self._board.row
        self._cells[row] = 0
        self._cells = cells
        cells[row] = self._own


class SharedService(Service):
    """A service whose `active`, clients and rates are the node's."""

    def __init__(self, reactor: Reactor, spec: ServiceSpec, observer: Observer, board: Board) -> None:
        self._board = board
        self._cells = board.cells(None)
        self._own = 0
        self._seen = 0
        super().__init__(reactor, spec, observer)
        self.admission = _SharedAdmission(spec, board)

    @property
    def own(self) -> int:
        """This process's part."""
        return self._own

    @property
    def active(self) -> int:
        """The node's count, as of now."""
        self._seen = seen = sum(self._cells[: self._board.head[0]])
        return seen

    @active.setter
    def active(self, value: int) -> None:
        """Take the change since the last look as this process's own."""
        self._own += value - self._seen
        self._seen = value
        self._cells[self._board.row] = self._own

    def use(self, cells: memoryview) -> None:
        """Count in another column from now on; what is counted moves along."""
        row = self._board.row
        self._cells[row] = 0
        self._cells = cells
        cells[row] = self._own


class _SharedAdmission(Admission):
    """Per-client limits of the node."""

    __slots__ = ("_board", "_service")

    def __init__(self, spec: ServiceSpec, board: Board) -> None:
        self._board = board
        self._service = spec.name
        super().__init__(spec.limits, spec.access)

    def reconfigure(self, limits: LimitsSpec, access: AccessSpec) -> None:
        """Take new limits; numbers that others count as well stay in the shared memory."""
        before = self._counts
        super().reconfigure(limits, access)
        if self._counts is None and isinstance(before, _SharedCounts):
            before.clear()
        elif self._counts is not None and before is None:
            self._counts = _SharedCounts(self._service, self._board)
        if self._rate is not None and not isinstance(self._rate, _SharedRate):
            self._rate = _SharedRate(limits.client_rate, self._service, self._board)

    def recount(self, clients: Iterable[str]) -> None:
        """Count anew."""
        if isinstance(self._counts, _SharedCounts):
            self._counts.clear()
            for client in clients:
                self._counts.opened(client)


class _SharedCounts(Counts):
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
        for client in list(self._counts):
            for _ in range(super().count(client)):
                self.closed(client)

    def _add(self, client: str, change: int) -> None:
        for number in buckets_of(self._service, client):
            self._board.counters.bucket(number)[self._board.row] += change


class _SharedRate(RateLimiter):
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
