"""Backends and services whose counts are the node's, not the worker's; see shared_counters for the theory.

`own` is what this process counts, published with one store; `active` is the sum of all, for limits and balancers. Pools are the
node's, too (`worker.pool`), and so is the length of a queue; who waits where is each worker's.
"""

from __future__ import annotations

from dataplane.core.admission import Admission
from dataplane.core.spec import BackendSpec, ServiceSpec
from dataplane.ipc.messages import Columns
from dataplane.ipc.shared_counters import WAITING
from dataplane.net.backend import Backend
from dataplane.net.connect import Observer
from dataplane.net.flow import Flow
from dataplane.net.reactor import Reactor
from dataplane.net.service import Service
from dataplane.worker.admission import SharedCounts, SharedQueue, SharedRate
from dataplane.worker.board import Board
from dataplane.worker.client_handoff import ClientBalancer, Siblings
from dataplane.worker.pool import WorkerShare

__all__ = ["SharedBackend", "SharedParts", "SharedService"]


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

    def use(self, column: int | None) -> None:
        """Count in another column from now on; what is counted moves along."""
        self.cells[self.row] = 0
        self.cells = self._board.cells(column)
        self.cells[self.row] = self.own
        self.queue.use(self._board.part(WAITING, column))
        self.balancer.use(column)


class SharedParts:
    """Services and backends that count in shared memory (dataplane.node.running_service.Parts)."""

    def __init__(self, board: Board, siblings: Siblings) -> None:
        self._board = board
        self._siblings = siblings
        self.columns: Columns = {}
        """Of what runs, and of what is about to: a backend's pool dials only where the others see it."""

    def service(self, reactor: Reactor, spec: ServiceSpec, observer: Observer) -> SharedService:
        """Make a service without backends; it counts alone until it is told where to (`use`)."""
        return SharedService(reactor, spec, observer, self._board, self._siblings)

    def backend(self, reactor: Reactor, spec: BackendSpec, service: ServiceSpec) -> SharedBackend:
        """Make a backend with its pool, not yet checked."""
        column = self.columns.get((service.name, spec.id))
        return SharedBackend(reactor, spec, service, self._board, column)
