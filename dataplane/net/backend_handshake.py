"""The TLS handshake with a backend, after the dial and before anything else is done with the connection.

Theory of operation:

1. It begins on a descriptor that is connected, and on which at most a PROXY header has been written: that goes first, in
   plain text, as HAProxy sends it (`send-proxy` beside `ssl`).
2. It has what the dial has left of `timeouts.connect`.
3. Who wants the connection hears once how it went. If `failure` is empty the descriptor is theirs, with `mask` of it in
   the epoll; else it is closed, and `failure` says why in words.
4. What the backend sends behind its handshake (tickets, a greeting) is in the channel (`early`, `session`).
"""

from __future__ import annotations

import errno
import ssl
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from dataplane.core.certificate_names import covers
from dataplane.core.postgres import SSL_REQUEST, YES
from dataplane.core.tls_cause import TlsCause
from dataplane.net.calls import IN, NOTHING, OUT, UNWATCHED, close, receive, send
from dataplane.net.counters import TlsTotals
from dataplane.net.reactor import Handler
from dataplane.net.sockopts import error_text, set_nodelay
from dataplane.net.tls import Channel, certificate_names
from dataplane.net.tls_failure import CLOSED, NAMELESS, failure_words

if TYPE_CHECKING:
    from dataplane.net.backend_tls import BackendTls, Peer
    from dataplane.net.reactor import Reactor
    from dataplane.net.sockopts import SocketAddress

READ_BYTES: Final = 16 * 1024
SHOWN_NAMES: Final = 3


class Offer(NamedTuple):
    """What of a client's own TLS a backend is to be told."""

    sni: str
    """The name that it has asked for; empty: none, or it is not passed on."""
    alpn: tuple[str, ...] | None
    """Protocols; None: those that are configured."""


class HandshakeOwner(Protocol):
    """Who wants the connection."""

    def shaken(self, handshake: BackendHandshake) -> None:
        """Take `handshake.fd` if `handshake.failure` is empty; else it is closed."""


class BackendHandshake(Handler):
    """One handshake under way.

    Args:
        fd: Connected.
        mask: What epoll reports of it.
        target: Where it leads.
    """

    __slots__ = (
        "_asks",
        "_name",
        "_totals",
        "_unsent",
        "begun_at",
        "channel",
        "dialled_at",
        "failure",
        "fd",
        "mask",
        "offer",
        "owner",
        "reactor",
        "target",
        "tick",
    )

    def __init__(self, reactor: Reactor, fd: int, mask: int, target: SocketAddress) -> None:
        self.is_backend = True
        self.reactor = reactor
        self.fd = fd
        self.target = target
        self.begun_at = self.dialled_at = reactor.now
        self.tick = 0
        self.mask = mask
        self.failure = ""
        """Why it failed, in words; empty: it has not."""
        self.owner: HandshakeOwner | None = None
        """None: it has ended."""
        self.offer: Offer | None = None
        """What of the client is passed on; None: nothing."""
        self._unsent = b""
        self._asks = False
        self._name = ""
        """What the certificate has to be for, where OpenSSL was asked for another name."""

    def start(
        self,
        owner: HandshakeOwner,
        tls: BackendTls,
        backend: Peer,
        deadline: float,
        header: bytes = b"",
        *,
        asks: bool = False,
    ) -> None:
        """Begin; the owner hears how it went, as a rule later.

        Args:
            owner: Who wants the connection.
            tls: How TLS to the service's backends begins.
            backend: Which one it is.
            deadline: When to give up (monotonic seconds); 0: never.
            header: What goes first, in plain text.
            asks: Ask for TLS behind that, as PostgreSQL's clients do, and begin when the backend agrees (`core.postgres`).
        """
        self.owner = owner
        self._totals = backend.totals
        self._unsent = header + SSL_REQUEST if asks else header
        self._asks = asks
        set_nodelay(self.fd)
        self.reactor.handlers.put(self.fd, self)
        if deadline:
            self.reactor.wheel.at(self, deadline)
        context, name = tls.context, tls.server_name_of(backend)
        if context.check_hostname and not name:
            self._settle(NAMELESS, TlsCause.WRONG_NAME)
            return
        try:
            if self.offer is not None:
                self.channel = self._offering(context, name, self.offer)
            else:
                self.channel = _opened(context, name, tls.session(backend))
        except ValueError as error:  # what should be a name is none
            self._settle(f"{TlsCause.WRONG_NAME}: {error}", TlsCause.WRONG_NAME)
            return
        if not asks:
            self._go_on(b"")
        elif self._send():
            self._watch(IN)

    def _offering(self, context: ssl.SSLContext, name: str | None, offer: Offer) -> Channel:
        """Return a session with what is of the client.

        `ssl` verifies the name that it sends, and has protocols for a context only. Both are copied when a session is made,
        so the context says something else meanwhile; what it does not verify then, `_done` does. Without an earlier
        session, which may be another client's.
        """
        verifies = context.check_hostname
        if offer.sni:
            context.check_hostname = False
            self._name = name if verifies and name else ""
        if offer.alpn is not None:
            context.set_alpn_protocols(list(offer.alpn))
        try:
            return Channel(context, False, offer.sni or name)
        finally:
            context.check_hostname = verifies
            if offer.alpn is not None:  # which excludes protocols of the configuration
                context.set_alpn_protocols([])

    def on_event(self, events: int) -> None:
        """Send what is left, and take what has come."""
        if events & OUT and self._unsent and not self._send():
            return
        data, code = receive(self.fd, 1 if self._asks else READ_BYTES)
        if data and self._asks:
            self._asks = False
            if data == YES:
                self._go_on(b"")
            else:
                self._settle(
                    f"it answers {data!r} to PostgreSQL's SSLRequest: it does not speak TLS", TlsCause.NOT_TLS
                )
        elif data:
            self._go_on(data)
        elif code != -NOTHING:
            words = f"{TlsCause.TRUNCATED}: {error_text(code)}" if code else CLOSED
            self._settle(words, TlsCause.TRUNCATED)

    def _go_on(self, data: bytes) -> None:
        channel = self.channel
        try:
            is_over = channel.handshake(data)
        except ssl.SSLError as error:
            send(self.fd, channel.outgoing())  # the alert that tells the backend why
            # What is unread at a close makes it a reset, which would overtake the alert (RFC 1122, 4.2.2.13).
            receive(self.fd, READ_BYTES)
            self._settle(failure_words(error), channel.failure)
            return
        self._unsent += channel.outgoing()
        if self._unsent and not self._send():
            return
        if is_over:
            self._done()
        elif self.mask != IN:
            self._watch(IN)

    def _send(self) -> bool:
        """Send what is to be sent; return whether that was all."""
        sent = send(self.fd, self._unsent)
        if sent < 0 and sent != NOTHING:
            self._settle(f"{TlsCause.TRUNCATED}: {error_text(-sent)}", TlsCause.TRUNCATED)
            return False
        self._unsent = self._unsent[max(0, sent) :]
        if self._unsent:
            self._watch(IN | OUT)
            return False
        if self.channel.is_open:
            self._done()
            return False
        self._watch(IN)
        return True

    def _done(self) -> None:
        """Settle a handshake that is over, if the certificate is for whom it has to be."""
        if self._name and not covers(names := certificate_names(self.channel), self._name):
            send(self.fd, self.channel.finish())
            said = ", ".join(value for _, value in names[:SHOWN_NAMES]) or "nobody"
            words = f"{TlsCause.WRONG_NAME}: certificate is for {said}, not {self._name}"
            self._settle(words, TlsCause.WRONG_NAME)
        else:
            self._settle("")

    def _watch(self, mask: int) -> None:
        if self.mask == UNWATCHED:
            self.reactor.watch(self.fd, self, mask)
        elif mask != self.mask:
            self.reactor.epoll.modify(self.fd, mask)
        self.mask = mask

    def on_timer(self, now: float) -> None:
        """Give up: the backend is too slow."""
        del now
        self._settle(f"{TlsCause.TIMEOUT}: the TLS handshake took too long", TlsCause.TIMEOUT)

    def on_failure(self) -> None:
        """Give up: a bug of ours was met."""
        self._settle(error_text(errno.ENOBUFS))

    def cancel(self) -> None:
        """Forget it; the owner hears nothing."""
        self.owner = None
        self._close()

    def _settle(self, failure: str, cause: TlsCause | None = None) -> None:
        owner, self.owner = self.owner, None
        if owner is None:
            return
        self.failure = failure
        totals = self._totals.tls
        if totals is None:
            totals = self._totals.tls = TlsTotals()
        if failure:
            self._close()
            if cause is not None:
                totals.failed(cause)
        else:
            self.reactor.wheel.cancel(self)
            self.channel.handshake_s = self.reactor.clock() - self.begun_at
            totals.completed(self.channel)
        owner.shaken(self)

    def _close(self) -> None:
        self.reactor.wheel.cancel(self)
        self.reactor.forget(self.fd)
        close(self.fd)


def _opened(context: ssl.SSLContext, name: str | None, session: ssl.SSLSession | None) -> Channel:
    """Return a session, which goes on with an earlier one if it can; ValueError if `name` is none."""
    if session is not None:
        try:
            return Channel(context, False, name, session)
        except ValueError:
            pass  # its context was renewed in between
    return Channel(context, False, name)
