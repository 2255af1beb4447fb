"""The flow of one client: two legs, and the one place where their ends are settled.

`dataplane.net.leg` has the theory of operation of the relay. Before the relay a flow waits, for one thing at a time
(`Waiting`), or for none; its client's socket is watched meanwhile only to hear of a client that leaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from dataplane.core.reasons import CloseReason
from dataplane.net.calls import RDHUP, UNWATCHED, close
from dataplane.net.leg import Leg, LegOwner
from dataplane.net.postgres import TlsRequest
from dataplane.net.sockopts import events_now, unsent_bytes
from dataplane.net.tls_leg import TlsLeg, broken_off, farewell, secured

if TYPE_CHECKING:
    from collections.abc import Callable

    from dataplane.core.admission import NetworkSet
    from dataplane.core.client_hello import ClientHello
    from dataplane.core.proxy_protocol.header import Field
    from dataplane.core.spec import ServiceSpec
    from dataplane.net.backend import Backend
    from dataplane.net.calls import Address
    from dataplane.net.deadlines import Deadlines
    from dataplane.net.dialer import Attempt, Dial
    from dataplane.net.reactor import Reactor
    from dataplane.net.sockopts import SocketAddress
    from dataplane.net.tls import Channel

VICTIM_CHECK_S: Final = 0.05
# A member of an enumeration is looked up by a call into Python, which a connection would pay for again and again.
_CLIENT_CLOSED: Final = CloseReason.CLIENT_CLOSED
_BACKEND_CLOSED: Final = CloseReason.BACKEND_CLOSED


class Waiting(Protocol):
    """What a flow waits for before its relay begins: its PROXY header, its ClientHello, a place in the queue, or a dial."""

    def cancel(self, flow: Flow) -> None:
        """Forget a flow that ends."""

    def on_timeout(self, flow: Flow, now: float) -> None:
        """End a flow that has waited for too long; it is in the wheel no longer."""


def end_if_late(flow: Flow, now: float, since: float, limit_s: float, reason: CloseReason) -> None:
    """End a flow that has waited for `limit_s`; else what passed was the deadline of a drain that was taken back."""
    if limit_s and since + limit_s <= now:
        flow.end(reason)
    elif limit_s:
        flow.reactor.wheel.at(flow, since + limit_s)


class _Connector(Protocol):
    """What gives flows their backends (`net.connect`)."""

    def dialled(self, flow: Flow, dial: Dial, code: int) -> None: ...
    def redial(self, flow: Flow) -> None: ...
    def on_early_reset(self, flow: Flow) -> None: ...
    def on_success(self, backend: Backend) -> None: ...


class FlowOwner:
    """A flow's service, as the flow sees it."""

    name: str
    reactor: Reactor
    spec: ServiceSpec
    drain_reason: CloseReason
    leaving_events: int
    """What epoll is asked for while a client waits, besides resets."""
    reuses: bool
    """The pool takes connections back."""
    proxy_required: bool
    trusted: NetworkSet
    """Whose PROXY headers are believed."""
    proxy_header: Callable[[Flow], bytes] | None
    """Makes what a backend is sent first."""
    deadlines: Deadlines
    connector: _Connector

    def admit(self, flow: Flow) -> None:
        """Let a flow in, or end it."""
        raise NotImplementedError

    def choose_backend(self, flow: Flow) -> None:
        """Give a flow that has been let in its first backend, or end it."""
        raise NotImplementedError

    def on_end(self, flow: Flow, reason: CloseReason, server: Leg | None, pooled: bool = False) -> None:  # noqa: FBT001, FBT002 - a keyword costs time, and this is called for each connection
        """Settle the accounts of a flow that is over."""
        raise NotImplementedError


class Flow(LegOwner):
    """One client's connection from accept to close.

    Its service gives it the client's leg.
    """

    __slots__ = (
        "address",
        "admitted",
        "backend",
        "born_at",
        "client",
        "connected_at",
        "counted",
        "deadline",
        "destination",
        "dial",
        "dialled_to",
        "fields",
        "first_at",
        "hello",
        "key",
        "over",
        "place",
        "pooled",
        "queued_s",
        "reason",
        "server",
        "service",
        "started_at",
        "tick",
        "tls_asked",
        "tried",
        "tuned",
        "unsent",
        "victim",
        "waiting",
    )

    client: Leg

    def __init__(self, service: FlowOwner, address: Address, now: float) -> None:
        self.is_backend = False
        self.service = service
        self.reactor = service.reactor
        self.address = address
        """The client's, after PROXY the carried one."""
        self.started_at = now
        self.last = now
        self.server: Leg | None = None
        self.backend: Backend | None = None
        self.dialled_to: SocketAddress | None = None
        """Where the backend connection leads, if another client may have it: no PROXY header was sent on it."""
        self.place = ""
        """The chosen backend's address, as configured: whoever has it later has this flow."""
        self.destination: tuple[str, int] | None = None
        """What the client connected to, if a PROXY header said so."""
        self.hello: ClientHello | None = None
        """What the client has sent first, if a router has looked at it; it is still there, or was passed on."""
        self.tls_asked = False
        """The client has asked for TLS as PostgreSQL's do, and has its answer: its TLS follows (`core.postgres`)."""
        self.fields: tuple[Field, ...] = ()
        """What else it said, if a backend shall be told."""
        self.key = 0
        self.tried: tuple[Backend, ...] = ()
        """Backends whose connection attempt failed."""
        self.over = False
        """Closed and settled."""
        self.counted = False
        """Let in by access rules and the client's own limits, and counted by the latter."""
        self.admitted = False
        """Counted by `limits.connections`."""
        self.tuned = False
        """The backend leg has its keepalive."""
        self.pooled = False
        """The backend connection came from the pool."""
        self.waiting: Waiting | None = None
        """What holds the flow before its relay begins."""
        self.dial: Attempt | None = None
        """The connection attempt under way."""
        self.reason: CloseReason | None = None
        """Set when the outcome is known but the flow is not over."""
        self.victim: Leg | None = None
        self.speaker = None
        self.detail = ""
        self.tick = 0
        self.unsent = 0
        """Bytes that the kernel held for both peers when the last timer looked."""
        self.deadline = 0.0
        """When a drain ends this flow; 0: not draining."""
        self.connected_at = self.first_at = self.born_at = self.queued_s = 0.0

    # -- before the relay -----------------------------------------------------------------------------

    def watch_client(self) -> None:
        """Hear of a client that leaves while its flow waits, and leave what it sends in its socket."""
        reactor, client, mask = self.reactor, self.client, self.service.leaving_events
        if client.mask == UNWATCHED:
            reactor.watch(client.fd, self, mask)
        else:
            reactor.handlers.put(client.fd, self)
            reactor.epoll.modify(client.fd, mask)
        client.mask = mask

    def on_event(self, events: int) -> None:  # noqa: ARG002 - a hint; the call tells
        """End the flow if its client has left: that is all that epoll reports while nothing is read.

        The kernel is asked again, as the event may be of a connection that had this descriptor before. A FIN says that the
        client sends no more. Whether it still waits for an answer, nobody can tell: `leaving_events` say what it is taken for.
        """
        seen = events_now(self.client.fd, self.service.leaving_events)
        if seen:
            self.end(CloseReason.ABANDONED if seen == RDHUP else CloseReason.CLIENT_GONE)

    def on_failure(self) -> None:
        """End the flow: a bug of ours was met."""
        self.end(CloseReason.LOCAL_ERROR, reset=True)

    def dialled(self, dial: Dial, code: int) -> None:
        """Go on after a dial that had to be waited for."""
        self.service.connector.dialled(self, dial, code)

    # -- the relay ------------------------------------------------------------------------------------

    def relay(
        self,
        backend: Backend,
        fd: int,
        mask: int,
        nagle: bool,  # noqa: FBT001 - compiled functions have no keyword-only arguments
        tls: Channel | None = None,
    ) -> None:
        """Begin to copy between the client and `fd`, of which epoll reports `mask` already.

        `born_at` tells when it was connected, for the pool's `max_age`. With a `tls` its PROXY header was sent before that.
        """
        backend.totals.connections += 1
        client = self.client
        if tls is None and client.tls is None:
            server = Leg(self, fd, True, nagle)
        else:
            client = self.client = secured(client)
            server = TlsLeg(self, fd, True, nagle)
            server.tls = tls
        server.mask = mask
        if mask != UNWATCHED:
            self.reactor.handlers.put(server.fd, server)
        client.peer = server
        server.peer = client
        self.server = server
        if client.mask != UNWATCHED:
            self.reactor.handlers.put(client.fd, client)
        self.last = self.connected_at = self.reactor.now
        when = self.last + self.service.deadlines.first_check_s
        self.reactor.wheel.move(self, min(when, self.deadline) if self.deadline else when)
        header = self.service.proxy_header
        if header is not None:
            self.dialled_to = None
            if tls is None:
                server.send_first(header(self))
        if (tls is not None or client.tls is not None) and not self._begins(client, server):
            return
        if (
            client.eof or server.eof
        ):  # before a redial (the pooled one turned out dead), or in what came early
            self.settle()
            return
        if self.tls_asked and tls is None and client.tls is None:
            TlsRequest(self, server).start()
            return
        server.rewatch()
        client.rewatch()

    def _begins(self, client: Leg, server: Leg) -> bool:
        """Have what came with handshakes passed on, the backend's first; return whether these two are still the flow's."""
        ahead, behind = server, client
        assert isinstance(ahead, TlsLeg) and isinstance(behind, TlsLeg)  # noqa: S101, PT018 - one of them has TLS
        ahead.begin()
        if self.over or self.server is not server:
            return False
        behind.begin()
        return not self.over

    def on_first_byte(self, leg: Leg) -> None:
        """Note the first byte that `leg` sent."""
        if leg is self.server:
            backend = self.backend
            assert backend is not None  # noqa: S101 - a server leg has one
            self.first_at = self.reactor.clock()
            if leg.tls is not None and backend.tls is not None:  # by now a ticket has come, if one comes
                backend.tls.remember(backend, leg.tls)
            if backend.failures:
                self.service.connector.on_success(backend)

    def replaces(self, leg: Leg) -> bool:
        """Return whether `leg`'s end is not the flow's: the pool takes its connection, or gives another."""
        server = self.server
        assert server is not None  # noqa: S101 - both legs exist while relaying
        if leg is server:
            if server.received or self.victim is not None:
                return False
            if self.pooled and not self.client.received:
                self.service.connector.redial(self)
                return True
            if server.broken:
                self.service.connector.on_early_reset(self)
            return False
        return self.service.reuses and self._gives_back(server)

    def _gives_back(self, server: Leg) -> bool:
        """Return a backend connection to the pool, if the client's exchange is over."""
        client = self.client
        if client.broken or client.dead or client.pending is not None or self.speaker is not server:
            return False
        if server.eof or server.dead or server.truncated or server.pending is not None:
            return False
        self.server = None
        self.end(_CLIENT_CLOSED, given_back=server)
        return True

    def settle(self) -> None:
        """Draw the conclusions from what the legs have seen; the only place that does."""
        client, server = self.client, self.server
        if self.over or server is None:
            return
        if self.victim is None:
            if server.broken:
                self.victim, self.reason = client, broken_off(server)
            elif client.eof and client.dead:
                self.victim, self.reason = server, CloseReason.CLIENT_RESET
        if self.victim is not None:
            self.reset_victim(self.victim)
        elif client.eof and server.eof and client.pending is None and server.pending is None:
            self.end(self.reason or _CLIENT_CLOSED)
        else:
            if self.reason is None and (client.eof or server.eof):
                self._half_closed(_CLIENT_CLOSED if client.eof else _BACKEND_CLOSED)
            client.pass_fin_on()
            server.pass_fin_on()
            client.rewatch()
            server.rewatch()

    def _half_closed(self, reason: CloseReason) -> None:
        """Note who finished first; after the backend, the shorter deadline holds from now on.

        A client that finishes first waits for an answer, which is not idle however long it takes to begin or to go on.
        """
        self.reason = reason
        self.last = now = self.reactor.now
        if reason is _BACKEND_CLOSED:
            self.service.deadlines.half_closed(self, now)

    def reset_victim(self, victim: Leg) -> None:
        """Reset `victim` and end the flow, if all that it is owed has arrived; else look again soon."""
        victim.peer.dead = True
        victim.peer.pending = None
        if victim.dead or (victim.pending is None and not unsent_bytes(victim.fd)):
            self.end(self.reason or CloseReason.LOCAL_ERROR, reset=True)
            return
        victim.peer.rewatch()
        victim.rewatch()
        self.reactor.wheel.move(self, self.reactor.now + VICTIM_CHECK_S)

    def on_timer(self, now: float) -> None:
        """End the flow if a deadline has really passed."""
        if self.server is not None:
            self.service.deadlines.on_timer(self, now)
        elif self.deadline and self.deadline <= now:
            self.end(self.service.drain_reason)
        elif self.waiting is not None:
            self.waiting.on_timeout(self, now)

    # -- the end --------------------------------------------------------------------------------------

    def end(self, reason: CloseReason, reset: bool = False, given_back: Leg | None = None) -> None:  # noqa: FBT001, FBT002 - compiled functions have no keyword-only arguments
        """Close what is open and settle the accounts; what is over already stays so."""
        if self.over:
            return
        reactor = self.reactor
        self.over = True
        waiting = self.waiting
        if waiting is not None:
            self.waiting = None
            waiting.cancel(self)
        if self.tick:
            reactor.wheel.cancel(self)
        client, server = self.client, self.server
        if not reset:
            if client.tls is not None:
                farewell(client)
            if server is not None and server.tls is not None:
                farewell(server)
        reactor.forget(client.fd)
        client.mask = UNWATCHED
        close(client.fd, reset=reset)
        if server is not None:
            reactor.forget(server.fd)
            server.mask = UNWATCHED
            close(server.fd, reset=reset)
        self.service.on_end(self, reason, given_back or server, given_back is not None)
        for leg in (client, given_back or server):
            if leg is not None:
                leg.part()
