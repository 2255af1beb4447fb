"""One running service: who may come in, who has to wait, and the accounts of all.

Life of a connection: `accepted`, then (if required) a PROXY header, `admit`, perhaps a place in the queue, the TLS
handshake (if it ends here), a backend (`net.connect`), the relay (`Flow`), and `on_end`.
Until a relay begins, nothing is read from the client but its PROXY header and its handshake, and its socket is watched only if
something has to be waited for; so each attempt may still go to any backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dataplane.core.admission import Admission, NetworkSet, WaitQueue
from dataplane.core.balance.sticky_table import client_key
from dataplane.core.reasons import CloseReason
from dataplane.core.selection import Lack, Selection
from dataplane.core.spec import Mode, PoolMode, ProxyAccept, ProxySend
from dataplane.net.calls import RDHUP
from dataplane.net.connect import Connector, ConnectorOwner, QueuePlace
from dataplane.net.counters import ServiceTotals
from dataplane.net.deadlines import Deadlines
from dataplane.net.flow import Flow
from dataplane.net.handshake import ClientHandshake
from dataplane.net.leg import Leg
from dataplane.net.proxy_header import HeaderReader, header_maker

if TYPE_CHECKING:
    from collections.abc import Callable, MutableSequence

    from dataplane.core.spec import ServiceSpec
    from dataplane.net.backend import Backend
    from dataplane.net.backend_tls import BackendTls
    from dataplane.net.calls import Address
    from dataplane.net.connect import Observer
    from dataplane.net.handshake import ServerTls
    from dataplane.net.reactor import Reactor


_NO_BACKEND: Final = CloseReason.NO_BACKEND
"""As in net.flow: looking it up would be a call into Python."""


class Service(ConnectorOwner):
    """A service as the connection path sees it."""

    def __init__(self, reactor: Reactor, spec: ServiceSpec, observer: Observer) -> None:
        self.reactor = reactor
        self.observer = observer
        self.name = spec.name
        self.backends: dict[str, Backend] = {}
        """By id, in configured order; removed ones are in `leaving`."""
        self.leaving: list[Backend] = []
        """Removed backends that still have connections."""
        self.former_addresses: frozenset[str] = frozenset()
        """Addresses of connections in place that no backend had when that was last looked at."""
        self.selection: Selection[Backend] = Selection({})
        self.flows: set[Flow] = set()
        self.own = 0
        """Admitted connections of this process; whoever changes it writes it into `cells[row]`, too."""
        self.cells: MutableSequence[int] | memoryview = [0]
        """Where other processes see it: a cell and not a method, for it is written for each connection."""
        self.row = 0
        self.totals = ServiceTotals()
        self.access_log: Callable[[Flow, CloseReason, Leg | None], None] | None = None
        self.tls: ServerTls | None = None
        """What TLS of new clients ends with; None: their bytes are passed on as they are."""
        self.backend_tls: BackendTls | None = None
        """How TLS to backends begins here; None: it does not. Whoever sets it, or `backends`, calls `spread_tls`."""
        self.draining = False
        self.drain_reason = CloseReason.DRAIN_TIMEOUT
        self.admission = Admission(spec.limits, spec.access)
        self.queue: WaitQueue[Flow] = WaitQueue(spec.limits.queue)
        self.queue_place = QueuePlace(self)
        self.connector: Connector = Connector(self)
        self.deadlines = Deadlines(reactor.wheel, spec.timeouts)
        self.leaving_events = 0
        self._serving = False
        self._speaks_tls = False
        self.configure(spec)

    @property
    def active(self) -> int:
        """Admitted connections that `limits.connections` counts: those of all processes that count together."""
        return self.own

    def configure(self, spec: ServiceSpec) -> None:
        """Take everything but the backends from `spec`; connections in place keep what they began with."""
        self.spec = spec
        self.most, self.per_backend, self.retries = (
            spec.limits.connections,
            spec.limits.per_backend,
            spec.retries,
        )
        self.admission.reconfigure(spec.limits, spec.access)
        if spec.limits.per_client:
            self.admission.recount(_client_ip(flow) for flow in self.flows if flow.counted)
        self.queue.reconfigure(spec.limits.queue)
        self.sticky = spec.mode is Mode.STICKY
        self.reuses = spec.pool.mode is PoolMode.REUSE
        self.trusted = NetworkSet(spec.proxy.trusted)
        self.proxy_required = spec.proxy.accept is ProxyAccept.REQUIRED
        self.proxy_header = header_maker(spec.proxy)
        self.deadlines.configure(spec.timeouts)
        leaving_events = RDHUP if spec.limits.drop_abandoned else 0
        if leaving_events != self.leaving_events:
            self.leaving_events = leaving_events
            for flow in self.flows:
                if self.reactor.handlers.get(flow.client.fd) is flow:  # it waits, and not for its header
                    flow.watch_client()
        self.guarded = bool(
            spec.limits.per_client or spec.limits.client_rate or spec.access.allow or spec.access.deny
        )

    def spread_tls(self) -> None:
        """Have all backends be spoken to with TLS, or without, as `backend_tls` and `spec` say."""
        if self.backend_tls is None and not self._speaks_tls:
            return
        self._speaks_tls = self.backend_tls is not None
        said = self.spec.backend_tls
        # What goes before the handshake, or into it, is of one client: then nothing can be done ahead but the dial.
        is_personal = said is not None and (said.pass_sni or said.pass_alpn)
        ahead = self._speaks_tls and self.spec.proxy.send is ProxySend.OFF and not is_personal
        for backend in self.backends.values():
            backend.use_tls(self.backend_tls, ahead=ahead)

    # -- coming in ------------------------------------------------------------------------------------

    def accepted(self, fd: int, address: Address) -> None:
        """Take a client's new connection."""
        self.totals.connections += 1
        flow = Flow(self, address, self.reactor.now)
        flow.client = Leg(flow, fd, False)
        self.flows.add(flow)
        try:
            if self.proxy_required:
                HeaderReader(flow).start()
            else:
                self.admit(flow)
        except Exception:  # a full epoll (fs.epoll.max_user_watches), or a bug of ours
            flow.on_failure()
            raise

    def routed(self, flow: Flow, listener: str) -> None:  # noqa: ARG002 - for processes that hand clients over
        """Take a client for whom a router has found this service; it is among `flows` already.

        With the address of its `listener` it may be handed over to another process.
        """
        self.totals.connections += 1
        self.admit(flow)

    def part_with(self, flow: Flow) -> None:
        """Give up a client of a listener's that was never counted here: it is another service's."""
        self.flows.discard(flow)
        if self.draining:
            self.observer.drained()

    def admit(self, flow: Flow) -> None:
        """Apply access rules and limits, then look for a backend."""
        if self.guarded:
            refusal = self.admission.refuse(_client_ip(flow), self.reactor.now)
            if refusal is not None:
                flow.end(refusal)
                return
            self.admission.opened(_client_ip(flow))
        flow.counted = True
        limit = self.most
        if limit and self.active >= limit:
            self.enqueue(flow, CloseReason.LIMIT_CONNECTIONS)
            return
        self.own = self.cells[self.row] = self.own + 1
        flow.admitted = True
        if self.sticky:
            self._choose_key(flow)
        if self.tls is not None:
            ClientHandshake(flow, self.tls, self.totals).start()
        else:
            self.choose_backend(flow)

    def choose_backend(self, flow: Flow) -> None:
        """Look for the first backend of a client that has its place, and its TLS if that ends here."""
        connector = self.connector
        connector.connect(flow, connector.choose(flow), _NO_BACKEND)

    def _choose_key(self, flow: Flow) -> None:
        flow.key = client_key(_client_ip(flow).encode(), self.spec.seed)

    # -- the queue ------------------------------------------------------------------------------------

    def enqueue(self, flow: Flow, refusal: CloseReason) -> None:
        """Let `flow` wait for a place, or end it: with `refusal` if there is no queue at all."""
        now = self.reactor.now
        if not self.queue.push(flow):
            flow.end(CloseReason.QUEUE_FULL if self.spec.limits.queue else refusal)
            return
        flow.waiting = self.queue_place
        flow.last = now
        flow.watch_client()
        if self.spec.limits.queue_timeout_s:
            self.reactor.wheel.move(flow, now + self.spec.limits.queue_timeout_s)

    def serve_queue(self) -> None:
        """Give free places to those who wait, the first first.

        One who cannot be served ends, which calls this again: the loop that is under way goes on instead, or
        a thousand of them would be a thousand calls deep.
        """
        if not self._serving:
            self._serving = True
            try:
                self._serve_queue()
            finally:
                self._serving = False

    def _serve_queue(self) -> None:
        limit = self.most
        while (flow := self.queue.peek()) is not None:
            if self.leaving_events:
                flow.on_event(0)  # its FIN may have come in this very batch of events
                if flow.over:
                    continue
            if limit and self.active >= limit and not flow.admitted:
                return
            if self.sticky:  # it may not have been when the flow came
                self._choose_key(flow)
            tls = None if flow.client.tls is not None else self.tls
            chosen = self.connector.choose(flow) if tls is None else Lack.NOBODY
            if chosen is Lack.FULL:
                return  # who waits keeps its place, and the time that it has waited
            self.queue.pop()
            flow.waiting = None
            self.reactor.wheel.cancel(flow)
            flow.queued_s = self.reactor.now - flow.last
            self.totals.queue.observe(flow.queued_s)
            if not flow.admitted:
                self.own = self.cells[self.row] = self.own + 1
                flow.admitted = True
            if tls is not None:
                ClientHandshake(flow, tls, self.totals).start()
                continue
            self.connector.connect(
                flow, chosen, CloseReason.CONNECT_FAILED if flow.tried else CloseReason.NO_BACKEND
            )

    # -- the accounts ---------------------------------------------------------------------------------

    def on_end(self, flow: Flow, reason: CloseReason, server: Leg | None, pooled: bool = False) -> None:  # noqa: FBT001, FBT002 - a keyword costs time, and this is called for each connection
        """Settle the accounts of a flow whose sockets are closed, but for `server` if it is for the pool."""
        self.flows.discard(flow)
        totals, now = self.totals, self.reactor.now
        totals.closed[reason] += 1
        totals.session.observe(now - flow.started_at)
        backend = flow.backend
        if server is not None and backend is not None:
            sent, answered = flow.client.received, server.received
            totals.bytes_in += sent
            totals.bytes_out += answered
            counts = backend.totals
            counts.bytes_in += sent
            counts.bytes_out += answered
            if flow.first_at:
                counts.first_byte.observe(flow.first_at - flow.connected_at)
        if self.access_log is not None:
            self.access_log(flow, reason, server)
        if backend is not None:
            connector = self.connector
            connector.release(flow, backend)
            if pooled and server is not None:  # before the next has its place: it is the same connection
                backend.pool.put(server, flow.born_at, flow.dialled_to)
        if flow.admitted:
            self.own = self.cells[self.row] = self.own - 1
        if flow.counted and self.guarded:
            self.admission.closed(_client_ip(flow))
        if self.queue:
            self.serve_queue()
        if self.draining:
            self.observer.drained()


def _client_ip(flow: Flow) -> str:
    """Return a client's address without its port; empty on a Unix socket."""
    return flow.address[0] if flow.address else ""
