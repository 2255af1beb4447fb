"""A worker's node: counts are shared, checks are the supervisor's, and listening sockets come and go."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dataplane.core.health import HealthState
from dataplane.core.spec import PoolMode
from dataplane.ipc.messages import INBOX, Columns, Found
from dataplane.net.listener import Listener
from dataplane.node.node import Node
from dataplane.node.running_service import find
from dataplane.worker.board import Board
from dataplane.worker.client_handoff import BalancedService, Inbox, Siblings
from dataplane.worker.shared import SharedBackend, SharedService

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping
    from random import Random

    from dataplane.core.spec import BackendSpec, ServiceSpec
    from dataplane.net.backend import Backend
    from dataplane.net.connect import Observer
    from dataplane.net.reactor import Reactor
    from dataplane.net.service import Service
    from dataplane.telemetry.events import Events
    from dataplane.worker.pool import SharedPool

__all__ = ["HeldDoors", "WorkerNode"]

REFRESH_S = 0.05
"""How old what a worker knows of the others may be where nobody asks: who waits in a queue, leastconn's order."""
REFRESHED = 500
"""Backends looked at in one refresh: a tenth of a millisecond."""
POOLS_REFRESHED = 100
"""Pools looked at in one refresh."""


class SharedParts:
    """Services and backends that count in shared memory (dataplane.node.running_service.Parts)."""

    def __init__(self, board: Board, siblings: Siblings) -> None:
        self._board = board
        self._siblings = siblings
        self.columns: Columns = {}
        """Of what runs, and of what is about to."""

    def service(self, reactor: Reactor, spec: ServiceSpec, observer: Observer) -> BalancedService:
        """Make a service without backends."""
        return BalancedService(reactor, spec, observer, self._board, self._siblings)

    def backend(self, reactor: Reactor, spec: BackendSpec, service: ServiceSpec) -> SharedBackend:
        """Make a backend."""
        column = self.columns.get((service.name, spec.id))
        return SharedBackend(reactor, spec, service, self._board, column)


class WorkerNode(Node):
    """A node whose backends and services count in shared memory."""

    parts: SharedParts

    def __init__(self, reactor: Reactor, events: Events, random: Random, board: Board) -> None:
        self.siblings = Siblings()
        super().__init__(reactor, events, random, SharedParts(board, self.siblings))
        self._board = board
        self._next_refreshed = 0
        self._pools: list[tuple[Service, SharedPool]] = []
        """Those that this round of refreshing has still to look at."""
        self.tick = 0

    def probe_all(self) -> None:
        """Do nothing: the supervisor checks."""

    def count_in(self, columns: Columns) -> None:
        """Count everything in the columns that the supervisor has chosen; what has none, here alone."""
        self.parts.columns = columns
        for name, running in self.running.items():
            service = running.service
            if isinstance(service, SharedService):
                service.use(columns.get(name))
            for backend in service.backends.values():
                if isinstance(backend, SharedBackend):
                    backend.use(columns.get((name, backend.id)))

    def arm(self) -> None:
        """Hand clients over, where that is asked for: every worker runs what this one does."""
        for running in self.running.values():
            if isinstance(running.service, BalancedService):
                running.service.arm()

    def disarm(self, staying: Container[str]) -> None:
        """Hand over only clients of services among `staying`: those that every worker will still know."""
        for name, running in self.running.items():
            if name not in staying and isinstance(running.service, BalancedService):
                running.service.disarm()

    def deliver(self, service: str, sock: socket.SocketType, address: tuple[str, int] | None) -> None:
        """Serve a client that another worker has accepted."""
        running = self.running.get(service)
        if running is None or not isinstance(running.service, BalancedService):
            sock.close()  # its service went while no worker was there to take it
        else:
            running.service.serve(sock, address)

    def judge(self, verdicts: Iterable[Found]) -> None:
        """Take what the supervisor's checks have found."""
        now = self.reactor.clock()
        for service, backend_id, state, cause, reachable, passed in verdicts:
            found = find(self.running, service, backend_id)
            if found is not None:
                running, backend = found
                change = backend.health.decide(HealthState(state), cause, now, reachable=reachable)
                running.judged(backend, change, passed="an active check passed" if passed else "")

    # -- what the others did --------------------------------------------------------------------------

    def start_refreshing(self) -> None:
        """Take clients from now on, and look every REFRESH_S at what the other workers count."""
        self._board.set_present(present=True)
        self.reactor.wheel.at(self, self.reactor.now + REFRESH_S)

    def on_timer(self, now: float) -> None:
        """Let those in who wait for a place that another worker's client has left; put loads in order again."""
        self.reactor.wheel.at(
            self, now + REFRESH_S
        )  # first: a bug met by one service must not end it for all
        loads: list[tuple[Service, Backend]] = []
        for running in self.running.values():
            service = running.service
            if service.queue:
                service.serve_queue()
            if service.selection.tracks_load:
                loads.extend((service, backend) for backend in service.backends.values())
        start = self._next_refreshed if self._next_refreshed < len(loads) else 0
        for service, backend in loads[start : start + REFRESHED]:
            if isinstance(backend, SharedBackend) and backend.has_moved():
                service.selection.changed(backend)
        self._next_refreshed = start + REFRESHED
        self._refresh_pools()

    def _refresh_pools(self) -> None:
        """Have the next pools tell what they need, and give up what others need more."""
        if not self._pools:
            self._pools = [
                (running.service, backend.pool)
                for running in self.running.values()
                if running.service.spec.pool.mode is not PoolMode.OFF
                for backend in running.service.backends.values()
                if isinstance(backend, SharedBackend)
            ]
        draining = any(running.service.draining for running in self.running.values())
        if draining:  # the process itself: a service that goes alone is not among them
            self._board.set_present(present=False)
        left = len(self._pools) - POOLS_REFRESHED
        for service, pool in self._pools[max(0, left) :]:
            if draining:
                pool.retire()
            elif not service.draining:
                pool.refresh()
        del self._pools[max(0, left) :]


@dataclass(frozen=True, slots=True)
class HeldSocket:
    """One listening socket of the supervisor's: an address has several, each with its own queue."""

    address: str
    index: int

    @property
    def key(self) -> str:
        """What it is called among the node's listeners."""
        return f"{self.address}#{self.index}"


class HeldDoors:
    """The listeners of a worker, on sockets that the supervisor lends it, and the inboxes that it reads."""

    def __init__(self, node: WorkerNode) -> None:
        self._node = node
        self._inboxes: dict[int, Inbox] = {}

    def shut(self, addresses: Mapping[str, str]) -> None:
        """Take who is in the queue of an address that is gone, and close it."""
        listeners = self._node.listeners
        for key in [key for key, listener in listeners.items() if listener.address not in addresses]:
            listeners.pop(key).close()

    def open(self, addresses: Mapping[str, str]) -> None:
        """Give the listeners their services; sockets of new addresses follow."""
        for listener in self._node.listeners.values():
            listener.serve(self._node.running[addresses[listener.address]].service)

    def take(self, held: Iterable[tuple[str, int]], fds: Iterable[int]) -> None:
        """Accept from sockets, too; one of an address that is not configured here (any more) is closed."""
        node = self._node
        names = {
            address: running.service
            for running in node.running.values()
            for address in running.service.spec.listen
        }
        for (address, index), fd in zip(held, fds, strict=True):
            key = HeldSocket(address, index).key
            sock = socket.socket(fileno=fd)
            if address == INBOX:
                inbox = self._inboxes[index] = Inbox(node.reactor, sock, node.deliver)
                inbox.start()
                continue
            service = names.get(address)
            if service is None or key in node.listeners:
                sock.close()
                continue
            sock.setblocking(False)
            listener = node.listeners[key] = Listener(node.reactor, address, sock, service)
            listener.start()

    def drop(self, held: Iterable[tuple[str, int]]) -> None:
        """Leave sockets, and those in their queues, to the others who have them."""
        listeners = self._node.listeners
        for address, index in held:
            if address == INBOX:
                self._inboxes.pop(index).close()
                continue
            listener = listeners.pop(HeldSocket(address, index).key, None)
            if listener is None:
                continue
            self._leave(listener)
            heir = next((one for one in listeners.values() if one.address == address), None)
            if heir is not None:
                heir.accepted += listener.accepted  # the total of an address never falls

    def leave_all(self) -> None:
        """Accept nothing more; the listeners stay listed, for their counts."""
        for listener in self._node.listeners.values():
            self._leave(listener)

    def empty_inboxes(self) -> None:
        """Serve everybody who was handed over."""
        for inbox in self._inboxes.values():
            inbox.empty()

    def leave_inboxes(self) -> None:
        """Take nobody else; who is in an inbox is a sibling's or a successor's, unless there is none."""
        if self._node.siblings.apart:
            self.empty_inboxes()
        while self._inboxes:
            self._inboxes.popitem()[1].close()

    @staticmethod
    def _leave(listener: Listener) -> None:
        if listener.sock.fileno() >= 0:  # else it was left before, and a client may have its number by now
            listener.detach()
            listener.sock.close()
