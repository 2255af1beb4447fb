"""The TLS handshake with a client, between its place under the limits and the choice of a backend.

Theory of operation:

1. A client has its place under `limits.connections` while it shakes hands, and no backend knows of it: a handshake that
   fails, or never ends, costs none a connection.
2. A client that says nothing costs an entry in the epoll and in the wheel; it has a session when its first bytes come.
3. Nothing is read while something waits to be sent, so that who never reads makes nothing grow.
4. What came right behind the handshake is in the session until the relay begins (`net.tls.Channel.early`).
5. A PostgreSQL client asks before it begins with TLS (`core.postgres`): it is told yes.
6. A failure's word is in the flow's `detail` (`core.tls_cause`). The client is told by an alert, if TLS has one for it.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final, Protocol

from dataplane.core.postgres import NO, REQUEST_BYTES, SSL_REQUEST, YES, read_request
from dataplane.core.reasons import CloseReason
from dataplane.core.tls_cause import TlsCause
from dataplane.net.calls import BUFFER, IN, NOTHING, OUT, UNWATCHED, pull, send
from dataplane.net.counters import tls_totals
from dataplane.net.flow import end_if_late
from dataplane.net.reactor import Handler
from dataplane.net.tls import Channel
from dataplane.net.tls_leg import secured

if TYPE_CHECKING:
    from dataplane.net.counters import ServiceTotals
    from dataplane.net.flow import Flow

READ_BYTES: Final = 16 * 1024
"""At once: what may come right behind a handshake and has to be kept until there is a backend."""


class ServerTls(Protocol):
    """How TLS of a service's clients ends here."""

    context: ssl.SSLContext
    """Of new clients; who renews a certificate may replace it."""


class ClientHandshake(Handler):
    """One client's (`net.flow.Waiting`).

    Args:
        flow: Has its place under the limits, and no backend.
        tls: What the service ends TLS with.
        totals: Where it is counted.
    """

    __slots__ = ("_answered", "_asked", "_channel", "_owed", "_since", "_tls", "_totals", "flow")

    def __init__(self, flow: Flow, tls: ServerTls, totals: ServiceTotals) -> None:
        self.is_backend = False
        self.flow = flow
        self._tls = tls
        self._totals = totals
        self._channel: Channel | None = None
        self._asked = b""
        """The beginning of what may become a request of PostgreSQL's."""
        self._answered: tuple[bytes, ...] = ()
        """Those of its requests that were answered: each may come once, and none after SSLRequest."""
        self._owed = b""
        """What the client's socket has not taken yet."""
        self._since = flow.reactor.now

    def start(self) -> None:
        """Wait for the client's first bytes, up to the deadline."""
        flow = self.flow
        flow.waiting = self
        self._watch(IN)
        timeout_s = flow.service.spec.timeouts.tls_handshake_s
        when = self._since + timeout_s if timeout_s else flow.deadline
        if when:
            flow.reactor.wheel.move(flow, min(when, flow.deadline) if flow.deadline else when)

    def on_event(self, events: int) -> None:  # noqa: ARG002 - a hint; the calls tell
        """Send what is owed, or read on."""
        if self._owed:
            self._send(b"")
        else:
            self._read()

    def on_failure(self) -> None:
        """End the flow: a bug of ours was met."""
        self.flow.end(CloseReason.LOCAL_ERROR, reset=True)

    def cancel(self, flow: Flow) -> None:
        """Do nothing: the socket is the flow's."""

    def on_timeout(self, flow: Flow, now: float) -> None:
        """End a flow whose handshake takes too long."""
        limit_s = flow.service.spec.timeouts.tls_handshake_s
        if limit_s and self._since + limit_s <= now:
            tls_totals(self._totals).failed(TlsCause.TIMEOUT)
        end_if_late(flow, now, self._since, limit_s, CloseReason.TLS_TIMEOUT)

    def _watch(self, mask: int) -> None:
        client, reactor = self.flow.client, self.flow.reactor
        if client.mask == UNWATCHED:
            reactor.watch(client.fd, self, mask)
        else:
            reactor.handlers.put(client.fd, self)
            if client.mask != mask:
                reactor.epoll.modify(client.fd, mask)
        client.mask = mask

    def _read(self) -> None:
        flow = self.flow
        size = pull(flow.client.fd, READ_BYTES)
        if size == NOTHING:
            return
        if size < 0:
            flow.end(CloseReason.CLIENT_GONE)
            return
        if not size:
            self._failed(TlsCause.NO_HELLO if self._channel is None else TlsCause.TRUNCATED)
            return
        channel, seen = self._channel, BUFFER[:size]
        if channel is None:
            if self._asked or not seen[0]:  # no TLS begins with a byte of zero (RFC 8446, 5.1)
                behind = self._answer(self._asked + bytes(seen))
                if not behind:
                    return
                seen = memoryview(behind)
            channel = self._channel = Channel(self._tls.context, True)
        try:
            channel.handshake(seen)
        except ssl.SSLError:
            assert channel.failure is not None  # noqa: S101 - that is what was raised
            send(flow.client.fd, channel.outgoing())
            self._failed(channel.failure)
        else:
            self._send(channel.outgoing())

    def _answer(self, seen: bytes) -> bytes:
        """Answer what PostgreSQL's clients ask before TLS; return what is behind that, nothing if it is not there yet."""
        while True:
            request = read_request(seen)
            if isinstance(request, int):
                self._asked = seen
                return b""
            if not request or request in self._answered or SSL_REQUEST in self._answered:
                self._asked = b""
                return seen
            self._answered += (request,)
            # An error is found when what follows is read.
            send(self.flow.client.fd, YES if request == SSL_REQUEST else NO)
            self.flow.tls_asked = request == SSL_REQUEST
            seen = seen[REQUEST_BYTES:]

    def _failed(self, cause: TlsCause) -> None:
        flow = self.flow
        flow.detail = cause
        tls_totals(self._totals).failed(cause)
        # What is unread at a close makes it a reset, which would overtake the alert (RFC 1122, 4.2.2.13).
        pull(flow.client.fd, len(BUFFER))
        flow.end(CloseReason.TLS_FAILED)

    def _send(self, more: bytes) -> None:
        """Send what is owed and `more`; go on to the backend when all of the handshake is over and sent."""
        flow, channel = self.flow, self._channel
        assert channel is not None  # noqa: S101 - only a session owes anything
        owed = self._owed + more
        if owed:
            sent = send(flow.client.fd, owed)
            if sent < 0 and sent != NOTHING:
                flow.end(CloseReason.CLIENT_GONE)
                return
            owed = owed[max(0, sent) :]
        self._owed = owed
        if owed:
            self._watch(OUT)
        elif channel.is_open:
            self._done(channel)
        else:
            self._watch(IN)

    def _done(self, channel: Channel) -> None:
        flow = self.flow
        reactor = flow.reactor
        reactor.wheel.cancel(flow)
        if flow.deadline:
            reactor.wheel.at(flow, flow.deadline)
        flow.waiting = None
        channel.handshake_s = reactor.clock() - self._since
        tls_totals(self._totals).completed(channel)
        client = flow.client = secured(flow.client)
        client.tls = channel
        reactor.handlers.put(client.fd, flow)
        flow.service.choose_backend(flow)
        # Most relays begin at once and go on to watch it: only who waits for a backend is not to be heard meanwhile.
        if flow.server is None and not flow.over and client.mask & (IN | OUT):
            reactor.epoll.modify(client.fd, 0)
            client.mask = 0
