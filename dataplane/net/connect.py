"""From an admitted client to its backend: choose one, take a pooled connection or dial, and try the next.

A client makes as many attempts as `retries` allows, each at another backend. Its socket is not read meanwhile, so
every attempt may still go to any backend. Who finds every backend full waits in the service's queue (`QueuePlace`), and
comes back here. Who waits for a dial waits for the `Connector`, which knows the dial as the flow's own.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, Protocol

from dataplane.core.outlier import Evidence
from dataplane.core.reasons import CloseReason
from dataplane.core.selection import Lack
from dataplane.net.calls import NOBODY, OUT, UNWATCHED, close
from dataplane.net.dialer import BUSY, PENDING, UNDER_WAY, Dial, begin
from dataplane.net.flow import FlowOwner, end_if_late
from dataplane.net.sockopts import LOCAL_ERRNOS, error_text

if TYPE_CHECKING:
    from dataplane.core.admission import WaitQueue
    from dataplane.core.selection import Selection
    from dataplane.net.backend import Backend
    from dataplane.net.counters import ServiceTotals
    from dataplane.net.flow import Flow

# As in net.flow: a lookup of these would be a call into Python.
_NOBODY: Final = Lack.NOBODY
_FULL: Final = Lack.FULL
PROMPT_S: Final = 1.0
"""A reset so soon after the connection is no answer to silence: servers wait for a login for 2 s (NATS) and more."""


class Observer(Protocol):
    """Who is told what one service meets, and keeps its backends' passive health."""

    def backend_failed(self, backend: Backend, evidence: Evidence, cause: str) -> None:
        """A connect failed, or a reset came before the first byte."""

    def backend_spoke(self, backend: Backend) -> None:
        """A backend with failures sent a first byte."""

    def local_error(self, code: int) -> None:
        """This machine refused a socket or a port."""

    def drained(self) -> None:
        """A connection of the service ended while it drains."""


class ConnectorOwner(FlowOwner):
    """The service whose clients want a backend."""

    observer: Observer
    totals: ServiceTotals
    selection: Selection[Backend]
    leaving: list[Backend]
    queue: WaitQueue[Flow]
    draining: bool
    per_backend: int
    """`limits.per_backend`."""
    retries: int

    def enqueue(self, flow: Flow, refusal: CloseReason) -> None:
        """Let a flow wait for a place, or end it."""
        raise NotImplementedError

    def serve_queue(self) -> None:
        """Give free places to those who wait."""
        raise NotImplementedError


class QueuePlace:
    """What a client waits for that stands in its service's queue (`net.flow.Waiting`)."""

    __slots__ = ("_service",)

    def __init__(self, service: ConnectorOwner) -> None:
        self._service = service

    def cancel(self, flow: Flow) -> None:
        """Leave the queue."""
        self._service.queue.discard(flow)

    def on_timeout(self, flow: Flow, now: float) -> None:
        """End a flow whose turn does not come."""
        limit_s = self._service.spec.limits.queue_timeout_s
        end_if_late(flow, now, flow.last, limit_s, CloseReason.QUEUE_TIMEOUT)


class Connector:
    """What gives the clients of one service their backends, and keeps the backends' accounts of them.

    It is also what a client waits for that is being dialled (`net.flow.Waiting`).
    """

    __slots__ = ("_service",)

    def __init__(self, service: ConnectorOwner) -> None:
        self._service = service

    def choose(self, flow: Flow) -> Backend | Lack:
        """Return the best backend for `flow`, or why there is none; `connect` acts on it."""
        service = self._service
        tried = flow.tried
        if len(tried) > service.retries:
            return _NOBODY
        limit = service.per_backend
        if limit:
            return service.selection.pick_below(limit, flow.key, tried)
        return service.selection.pick(flow.key, tried) or _NOBODY

    def connect(self, flow: Flow, chosen: Backend | Lack, failure: CloseReason) -> None:
        """Give `flow` a connection to the best backend that it has not tried, or let it wait for a place, or end it.

        Args:
            flow: An admitted flow without a backend.
            chosen: What `choose` has answered.
            failure: How the last attempt ended: the reason if there is no other to be made.
        """
        while chosen is not _NOBODY:
            if chosen is _FULL:
                self._service.enqueue(flow, CloseReason.LIMIT_PER_BACKEND)
                return
            if flow.tried:
                self._service.totals.retries += 1
            code = self._attempt(flow, chosen)
            if not code:
                return
            failure = self._failed(flow, chosen, code)
            chosen = self.choose(flow)
        flow.end(failure)

    def dialled(self, flow: Flow, dial: Dial, code: int) -> None:
        """Go on after a dial that had to be waited for."""
        flow.waiting = flow.dial = None
        backend = flow.backend
        assert backend is not None  # noqa: S101 - it was chosen before it was dialled
        if code:
            self._try_another(flow, backend, code)
            return
        now = self._service.reactor.clock()
        flow.born_at = now
        flow.dialled_to = dial.target
        if dial.failure:
            backend.prefer(dial.target)
        backend.totals.connect.observe(now - dial.started_at)
        if not dial.pause_s:  # more idle connections would only fill its accept queue
            backend.pool.goal.demand.dialled(now - dial.started_at)
        flow.relay(backend, dial.fd, OUT, nagle=True)

    def cancel(self, flow: Flow) -> None:
        """Forget the dial of a flow that ends."""
        dial, flow.dial = flow.dial, None
        if dial is not None:
            dial.cancel()

    def on_timeout(self, flow: Flow, now: float) -> None:
        """Do nothing: a dial has a deadline of its own."""

    def redial(self, flow: Flow) -> None:
        """Replace a pooled connection that turned out dead before anything was sent on it."""
        backend, server = flow.backend, flow.server
        assert backend is not None and server is not None  # noqa: S101, PT018 - it was relaying
        self._service.reactor.handlers.pop(server.fd, None)
        close(server.fd)
        flow.server = None
        flow.pooled = False
        flow.place = backend.spec.address
        code = self._dial(flow, backend)
        if code:
            self._try_another(flow, backend, code)

    def on_early_reset(self, flow: Flow) -> None:
        """Tell passive health of a reset before the backend's first byte.

        The client's side cannot have given cause to it if it has sent neither a byte nor a FIN, its address was not told,
        and it was not waited for: servers also reset who says nothing in time.
        """
        backend, client, service = flow.backend, flow.client, self._service
        assert backend is not None  # noqa: S101 - it was relaying
        prompt = service.reactor.now - flow.connected_at < PROMPT_S
        innocent = prompt and not client.received and not client.eof and flow.service.proxy_header is None
        evidence = Evidence.UNPROVOKED_RESET if innocent else Evidence.RESET
        service.observer.backend_failed(backend, evidence, "reset before the first byte")

    def on_success(self, backend: Backend) -> None:
        """Tell passive health that a backend with failures sent a first byte."""
        self._service.observer.backend_spoke(backend)

    def release(self, flow: Flow, backend: Backend) -> None:
        """Give back the place of `flow` at `backend`."""
        service = self._service
        flow.backend = None
        backend.own = backend.cells[backend.row] = backend.own - 1
        if service.selection.tracks_load:
            service.selection.changed(backend)
        if backend.removed and not backend.own and backend in service.leaving:
            service.leaving.remove(backend)

    def move(self, flow: Flow, home: Backend) -> None:
        """Count `flow` at another backend, which has the address of its own now; totals stay where they were counted."""
        backend, server, service = flow.backend, flow.server, self._service
        assert backend is not None  # noqa: S101 - else it has no address
        if server is not None:
            # What is shown is the totals and what connections in place have carried: neither sum falls.
            received, answered = flow.client.received, server.received
            backend.totals.bytes_in += received
            backend.totals.bytes_out += answered
            home.totals.bytes_in -= received
            home.totals.bytes_out -= answered
        self.release(flow, backend)
        flow.backend = home
        home.own = home.cells[home.row] = home.own + 1
        if service.selection.tracks_load:
            service.selection.changed(home)

    def _attempt(self, flow: Flow, backend: Backend) -> int:
        """Take a pooled connection or dial; return 0 (relaying, or under way) or an errno."""
        selection = self._service.selection
        flow.backend = backend
        flow.place = backend.spec.address
        backend.own = backend.cells[backend.row] = backend.own + 1
        if selection.tracks_load:
            selection.changed(backend)
        pool = backend.pool
        idle = pool.take()
        if idle is None:
            code = self._dial(flow, backend)
        else:
            code = 0
            flow.pooled = True
            flow.dialled_to = idle.target
            flow.born_at = idle.born_at
            flow.relay(backend, idle.fd, idle.mask, nagle=idle.nagle)
        if not code and pool.goal.count:
            pool.refiller.refill()
        return code

    def _dial(self, flow: Flow, backend: Backend) -> int:
        address = backend.address
        if address is None:
            return errno.EHOSTUNREACH
        service = self._service
        limit = service.per_backend
        if limit and backend.active + backend.pool.held > limit:
            backend.pool.displace()
        reactor = service.reactor
        flow.dialled_to = address
        started_at = reactor.clock()
        fd, code = begin(address, reactor.dial_ceiling)
        if fd == NOBODY:
            return code
        if code == 0:
            flow.born_at = reactor.clock()
            backend.totals.connect.observe(flow.born_at - started_at)
            flow.relay(backend, fd, UNWATCHED, nagle=True)
        elif code in UNDER_WAY or backend.others:
            flow.waiting, flow.dial = self, Dial(reactor, address, backend.others, fd)
            code = flow.dial.start(flow, backend.connect_timeout_s, code)
            if code != PENDING:
                flow.waiting = flow.dial = None
                return code
            flow.watch_client()
        else:
            close(fd)
            return code
        return 0

    def _try_another(self, flow: Flow, backend: Backend, code: int) -> None:
        """Settle an attempt that failed, and make the next; whoever waits may have the place at that backend."""
        failure = self._failed(flow, backend, code)
        self.connect(flow, self.choose(flow), failure)
        self._service.serve_queue()

    def _failed(self, flow: Flow, backend: Backend, code: int) -> CloseReason:
        """Settle the accounts of a failed attempt, and say how the flow would end because of it."""
        service = self._service
        self.release(flow, backend)
        flow.tried = (*flow.tried, backend)
        if not service.draining:  # its deadline, if any, was that of the backend
            flow.deadline = 0.0
        flow.detail = error_text(code)
        if code in LOCAL_ERRNOS:
            service.observer.local_error(code)
            return CloseReason.LOCAL_ERROR
        if code == BUSY:  # it works: all that it lacks is time
            return CloseReason.CONNECT_TIMEOUT
        backend.totals.connect_failures += 1
        # It had accepted, and reset before we looked: no failed connect, and nothing that a client has sent.
        evidence = Evidence.UNPROVOKED_RESET if code == errno.ECONNRESET else Evidence.CONNECT
        service.observer.backend_failed(backend, evidence, flow.detail)
        return CloseReason.CONNECT_TIMEOUT if code == errno.ETIMEDOUT else CloseReason.CONNECT_FAILED
