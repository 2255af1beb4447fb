"""A worker's node: counts are shared, checks are the supervisor's, and listening sockets come and go."""

from __future__ import annotations

import socket
from collections.abc import Container, Iterable, Iterator
from random import Random

from dataplane.core.health import HealthState
from dataplane.core.spec import BackendSpec, PoolMode, ServiceSpec
from dataplane.ipc.messages import INBOX, Columns, Verdict
from dataplane.ipc.shared_counters import Board
from dataplane.net.backend import Backend
from dataplane.net.calls import Address, close
from dataplane.net.connect import Observer
from dataplane.net.listener import Entrance, Listener
from dataplane.net.reactor import Reactor
from dataplane.net.service import Service
from dataplane.node.node import Node
from dataplane.node.routers import Addresses, arrange, behind
from dataplane.node.running_service import RunningService, find
from dataplane.telemetry.events import Events
from dataplane.worker.client_handoff import Inbox, Siblings
from dataplane.worker.shared import SharedBackend, SharedService

REFRESH_S = 0.05
"""How old what a worker knows of the others may be where nobody asks: who waits in a queue, leastconn's order."""
REFRESHED = 500
"""Backends looked at in one refresh: a tenth of a millisecond."""
POOLS_REFRESHED = 100
"""Pools looked at in one refresh."""


class WorkerNode(Node):
    """A node whose backends and services count in shared memory."""

    def __init__(self, reactor: Reactor, events: Events, random: Random, board: Board) -> None:
        self.siblings = Siblings()
        super().__init__(reactor, events, random)
        self._board = board
        self.columns: Columns = {}
        """Of what runs, and of what is about to: a backend's pool dials only where the others see it."""
        self._next_refreshed = 0
        self._pools: list[tuple[SharedService, SharedBackend]] = []
        """Those that this round of refreshing has still to look at."""
        self.tick = 0

    def make_service(self, spec: ServiceSpec, observer: Observer) -> SharedService:
        """Make a service that counts alone until it is told where to (`count_in`)."""
        return SharedService(self.reactor, spec, observer, self._board, self.siblings)

    def make_backend(self, spec: BackendSpec, service: ServiceSpec) -> SharedBackend:
        """Make a backend with its pool."""
        column = self.columns.get((service.name, spec.id))
        return SharedBackend(self.reactor, spec, service, self._board, column)

    def probe_all(self) -> None:
        """Do nothing: the supervisor checks."""

    def services(self) -> Iterator[SharedService]:
        """Return what runs."""
        return map(_shared, self.running.values())

    def count_in(self, columns: Columns) -> None:
        """Count everything in the columns that the supervisor has chosen; what has none, here alone."""
        self.columns = columns
        for service in self.services():
            service.use(columns.get(service.name))
            for backend in service.backends.values():
                if isinstance(backend, SharedBackend):
                    backend.use(columns.get((service.name, backend.id)))

    def arm(self) -> None:
        """Hand clients over, where that is asked for: every worker runs what this one does."""
        for service in self.services():
            service.balancer.arm()

    def disarm(self, staying: Container[str]) -> None:
        """Hand over only clients of services among `staying`: those that every worker will still know."""
        for service in self.services():
            if service.name not in staying:
                service.balancer.disarm()

    def deliver(self, name: str, fd: int, address: Address, listener: str) -> None:
        """Serve a client that another worker has accepted, and routed if `listener` says where."""
        running, router = self.running.get(name), self.routers.get(listener)
        if running is None:
            close(fd)  # its service went while no worker was there to take it
        elif router is not None:
            router.receive(fd, address)
        else:
            _shared(running).balancer.serve(fd, address)

    def judge(self, verdicts: Iterable[Verdict]) -> None:
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
        # first: a bug met by one service must not end it for all
        self.reactor.wheel.at(self, now + REFRESH_S)
        loads: list[tuple[SharedService, Backend]] = []
        for service in self.services():
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
                (service, backend)
                for service in self.services()
                if service.spec.pool.mode is not PoolMode.OFF
                for backend in service.backends.values()
                if isinstance(backend, SharedBackend)
            ]
        draining = any(service.draining for service in self.services())
        if draining:  # the process itself: a service that goes alone is not among them
            self._board.set_present(present=False)
        left = len(self._pools) - POOLS_REFRESHED
        for service, backend in self._pools[max(0, left) :]:
            if draining:
                backend.share.retire(backend.pool)
            elif not service.draining:
                backend.share.refresh(backend.pool)
        del self._pools[max(0, left) :]


def _shared(running: RunningService) -> SharedService:
    assert isinstance(running.service, SharedService)  # noqa: S101 - `make_service` makes no others
    return running.service


class LentListeners:
    """The listeners of a worker, on sockets that the supervisor lends it, and the inboxes that it reads.

    An address has several, each with its own queue: among the node's listeners they are called `address#number`.
    """

    def __init__(self, node: WorkerNode) -> None:
        self._node = node
        self._inboxes: dict[int, Inbox] = {}

    def shut(self, addresses: Addresses) -> None:
        """Take who is in the queue of an address that is gone, and close it."""
        listeners = self._node.listeners
        for key in [key for key, listener in listeners.items() if listener.address not in addresses]:
            listeners.pop(key).close()

    def open(self, addresses: Addresses) -> None:
        """Give the listeners their services; sockets of new addresses follow."""
        arrange(self._node, addresses)
        for listener in self._node.listeners.values():
            listener.serve(*self._behind(listener.address, addresses[listener.address][0]))

    def take(self, held: Iterable[tuple[str, int]], fds: Iterable[int]) -> None:
        """Accept from sockets, too; one of an address that is not configured here (any more) is closed."""
        node = self._node
        first: dict[str, str] = {}
        for name in sorted(node.running):
            for address in node.running[name].service.spec.listen:
                first.setdefault(address, name)
        for (address, index), fd in zip(held, fds, strict=True):
            key = f"{address}#{index}"
            sock = socket.socket(fileno=fd)
            if address == INBOX:
                self._inboxes[index] = Inbox(node.reactor, sock, node.deliver)
                continue
            if address not in first or key in node.listeners:
                sock.close()
                continue
            sock.setblocking(False)
            service, entrance = self._behind(address, first[address])
            listener = node.listeners[key] = Listener(node.reactor, address, sock, service, entrance)
            listener.start()

    def drop(self, held: Iterable[tuple[str, int]]) -> None:
        """Leave sockets, and those in their queues, to the others who have them."""
        listeners = self._node.listeners
        for address, index in held:
            if address == INBOX:
                self._inboxes.pop(index).close()
                continue
            listener = listeners.pop(f"{address}#{index}", None)
            if listener is None:
                continue
            self._leave(listener)
            other = next((one for one in listeners.values() if one.address == address), None)
            if other is not None:
                other.accepted += listener.accepted  # the total of an address never falls

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

    def _behind(self, address: str, name: str) -> tuple[Service, Entrance]:
        """Return what a listener is for, and who takes its clients: a router, or the service's balancer."""
        service, entrance = behind(self._node, address, name)
        return service, entrance or _shared(self._node.running[name]).balancer.entrance

    @staticmethod
    def _leave(listener: Listener) -> None:
        if listener.sock.fileno() >= 0:  # else it was left before, and a client may have its number by now
            listener.detach()
            listener.sock.close()
