"""From an admitted client to its backend: choose one, take a pooled connection or dial, and try the next.

A client makes as many attempts as `retries` allows, each at another backend. Its socket is not read meanwhile, so
every attempt may still go to any backend. Who finds every backend full waits in the service's queue (`QueuePlace`), and
comes back here. Who waits for a dial waits for the `Connector`, which knows the dial as the flow's own. Where TLS to backends
begins here, its handshake (`HandshakePlace`) belongs to the attempt: one that fails is a failed attempt.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, Protocol

from dataplane.core.outlier import Evidence
from dataplane.core.postgres import POSTGRESQL
from dataplane.core.reasons import CloseReason
from dataplane.core.selection import Lack
from dataplane.net.backend_handshake import BackendHandshake, Offer
from dataplane.net.calls import NOBODY, OUT, UNWATCHED, close
from dataplane.net.dialer import BUSY, PENDING, UNDER_WAY, Dial, begin
from dataplane.net.flow import FlowOwner, end_if_late
from dataplane.net.sockopts import LOCAL_ERRNOS, error_text

if TYPE_CHECKING:
    from dataplane.core.admission import WaitQueue
    from dataplane.core.selection import Selection
    from dataplane.core.spec import BackendTlsSpec
    from dataplane.net.backend import Backend
    from dataplane.net.counters import ServiceTotals
    from dataplane.net.flow import Flow
    from dataplane.net.idle import Idle
    from dataplane.net.sockopts import SocketAddress

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


class FlowHandshake(BackendHandshake):
    """The handshake of a flow's own backend connection."""

    __slots__ = ("flow",)

    flow: Flow


class HandshakePlace:
    """What a client waits for whose backend's TLS handshake is under way (`net.flow.Waiting`)."""

    __slots__ = ("_connector", "_service")

    def __init__(self, service: ConnectorOwner, connector: Connector) -> None:
        self._service = service
        self._connector = connector

    def begin(
        self, flow: Flow, backend: Backend, fd: int, mask: int, target: SocketAddress, deadline: float
    ) -> None:
        """Begin the handshake on a connection to `target`, of which epoll reports `mask`.

        The PROXY header goes first: it has the client's address in it, so no handshake that is done ahead could follow it.
        """
        tls = backend.tls
        assert tls is not None  # noqa: S101 - the caller looked
        handshake = FlowHandshake(self._service.reactor, fd, mask, target)
        handshake.flow = flow
        if tls.spec.pass_sni or tls.spec.pass_alpn:
            handshake.offer = _offer(flow, tls.spec)
        flow.waiting, flow.dial = self, handshake
        flow.watch_client()
        header = flow.service.proxy_header
        # With this protocol TLS begins at once, and so it did with the connections of the pool.
        begun = flow.service.spec.backend_tls
        asks = flow.tls_asked and (begun is None or POSTGRESQL not in begun.alpn)
        handshake.start(self, tls, backend, deadline, b"" if header is None else header(flow), asks=asks)

    def relay_idle(self, flow: Flow, backend: Backend, idle: Idle) -> None:
        """Go on with a pooled connection, whose handshake was done ahead or not."""
        if idle.tls is not None:
            if backend.tls is not None:  # its ticket has come since the handshake
                backend.tls.remember(backend, idle.tls)
            flow.relay(backend, idle.fd, idle.mask, False, idle.tls)
            return
        now, limit_s = self._service.reactor.clock(), backend.connect_timeout_s
        assert idle.target is not None  # noqa: S101 - it was dialled
        self.begin(flow, backend, idle.fd, idle.mask, idle.target, now + limit_s if limit_s else 0.0)

    def shaken(self, handshake: BackendHandshake) -> None:
        """Go on after a handshake."""
        assert isinstance(handshake, FlowHandshake)  # noqa: S101 - no other was begun here
        flow = handshake.flow
        flow.waiting = flow.dial = None
        backend = flow.backend
        assert backend is not None  # noqa: S101 - it was chosen before it was dialled
        if handshake.failure:
            self._connector.try_another(flow, backend, errno.EPROTO, handshake.failure)
            return
        if not flow.pooled:
            backend.pool.goal.demand.dialled(self._service.reactor.now - flow.born_at)
        flow.relay(backend, handshake.fd, handshake.mask, False, handshake.channel)

    def cancel(self, flow: Flow) -> None:
        """Forget the handshake of a flow that ends."""
        handshake, flow.dial = flow.dial, None
        if handshake is not None:
            handshake.cancel()

    def on_timeout(self, flow: Flow, now: float) -> None:
        """Do nothing: a handshake has a deadline of its own."""


def _offer(flow: Flow, spec: BackendTlsSpec) -> Offer:
    """Return what of the client's TLS a backend is to be told: where it ends here, what was agreed on, else what it offers."""
    channel, hello = flow.client.tls, flow.hello
    sni, alpn = "", tuple[str, ...]()
    if channel is not None:
        sni, alpn = channel.sni, (channel.alpn,) if channel.alpn else ()
    elif hello is not None:
        sni, alpn = hello.sni, tuple(one for one in hello.alpn if one.isascii())
    return Offer(sni if spec.pass_sni else "", alpn if spec.pass_alpn else None)


class Connector:
    """What gives the clients of one service their backends, and keeps the backends' accounts of them.

    It is also what a client waits for that is being dialled (`net.flow.Waiting`).
    """

    __slots__ = ("_handshakes", "_service")

    def __init__(self, service: ConnectorOwner) -> None:
        self._service = service
        self._handshakes = HandshakePlace(service, self)

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
            self.try_another(flow, backend, code)
            return
        now = self._service.reactor.clock()
        flow.born_at = now
        flow.dialled_to = dial.target
        if dial.failure:
            backend.prefer(dial.target)
        backend.totals.connect.observe(now - dial.started_at)
        if not dial.pause_s:  # more idle connections would only fill its accept queue
            backend.pool.goal.demand.dialled(now - dial.started_at)
        if backend.tls is None:
            flow.relay(backend, dial.fd, OUT, True)
        else:
            self._handshakes.begin(flow, backend, dial.fd, OUT, dial.target, dial.deadline)

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
        self._service.reactor.forget(server.fd)
        close(server.fd)
        flow.server = None
        flow.pooled = False
        flow.place = backend.spec.address
        code = self._dial(flow, backend)
        if code:
            self.try_another(flow, backend, code)

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
            if backend.tls is None:
                flow.relay(backend, idle.fd, idle.mask, idle.nagle)
            else:
                self._handshakes.relay_idle(flow, backend, idle)
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
            if backend.tls is None:
                flow.relay(backend, fd, UNWATCHED, True)
            else:
                limit_s = backend.connect_timeout_s
                deadline = started_at + limit_s if limit_s else 0.0
                self._handshakes.begin(flow, backend, fd, UNWATCHED, address, deadline)
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

    def try_another(self, flow: Flow, backend: Backend, code: int, words: str = "") -> None:
        """Settle an attempt that failed, and make the next; whoever waits may have the place at that backend.

        `words` say why the TLS handshake failed; without it they are empty.
        """
        failure = self._failed(flow, backend, code, words)
        self.connect(flow, self.choose(flow), failure)
        self._service.serve_queue()

    def _failed(self, flow: Flow, backend: Backend, code: int, words: str = "") -> CloseReason:
        """Settle the accounts of a failed attempt, and say how the flow would end because of it."""
        service = self._service
        self.release(flow, backend)
        flow.tried = (*flow.tried, backend)
        if not service.draining:  # its deadline, if any, was that of the backend
            flow.deadline = 0.0
        flow.detail = words or error_text(code)
        if code in LOCAL_ERRNOS:
            service.observer.local_error(code)
            return CloseReason.LOCAL_ERROR
        if code == BUSY:  # it works: all that it lacks is time
            return CloseReason.CONNECT_TIMEOUT
        backend.totals.connect_failures += 1
        # It had accepted, and reset before we looked: no failed connect, and nothing that a client has sent.
        evidence = Evidence.UNPROVOKED_RESET if code == errno.ECONNRESET else Evidence.CONNECT
        service.observer.backend_failed(backend, evidence, flow.detail)
        if words:
            return CloseReason.BACKEND_TLS_FAILED
        return CloseReason.CONNECT_TIMEOUT if code == errno.ETIMEDOUT else CloseReason.CONNECT_FAILED
