"""A leg of a flow that has TLS on one side or on both: reading and writing through its session.

Theory of operation, besides that of `dataplane.net.leg`, whose rules hold here as well:

1. One read for each event, then all records of it, then one write. What the peer's socket does not take is in `pending` as it
   has to be sent: sealed, if the peer has a session.
2. After each read everything that can be decrypted is with the peer, or is its `pending`; so no event is missed. What came
   with the handshake, before the relay, is passed on by `begin`, without an event.
3. A close_notify is a FIN (`eof`), and passing a FIN on is to send a close_notify before it. A FIN without one is a
   truncation: the leg is `broken`, as by a reset. So it is when the session fails, by an alert or a record that was changed; and
   whatever came before is passed on first.
4. Who is truncated or reset gets no close_notify, so that whoever reads can tell.
5. What a session answers on its own (alerts, a KeyUpdate) is sent by the way. Who makes it answer and takes no answer is cut.
6. `received` counts what was in the session, without what TLS adds to it.
"""

from __future__ import annotations

import errno
from typing import Final

from dataplane.core.reasons import CloseReason
from dataplane.core.tls_cause import TlsCause
from dataplane.net.calls import BUFFER, BUFFER_BYTES, NOTHING, finish, pull, send
from dataplane.net.leg import CHUNK_BYTES, OVER, PACKET_BYTES, RESERVE_BYTES, Leg
from dataplane.net.sockopts import limit_unsent

MOST_PENDING_BYTES: Final = 2 * BUFFER_BYTES
"""One read's worth, sealed, is half of that and a little more; the rest are answers that nobody takes."""


class TlsLeg(Leg):
    """One connection of a flow of which one has TLS: this one if it has a `tls`."""

    __slots__ = ()

    def _read(self) -> None:
        chunk, tls = self.chunk, self.tls
        size = pull(self.fd, chunk)
        if size > 0:
            self.flow.last = self.flow.reactor.now
            if tls is None:
                self._pass_on(BUFFER[:size], size == chunk)
            else:
                data = tls.receive(BUFFER[:size])
                if data:
                    self._pass_on(data, size == chunk)
                self._take_note()
        elif size != NOTHING:
            if size or tls is not None:
                self._break(TlsCause.TRUNCATED if not size else None)
            else:
                self.broken = self.truncated
            self._end_reading()

    def begin(self) -> None:
        """Take what came with the handshake; the relay begins. It may end the flow, or replace the leg."""
        tls = self.tls
        if tls is not None:
            early, tls.early = tls.early, b""
            if early:
                self._pass_on(early, False)
            self._take_note()

    def _pass_on(self, data: bytes | memoryview, is_full: bool) -> None:  # noqa: FBT001 - compiled functions have no keyword-only arguments
        """Write what was read to the peer; `is_full`: it was as much as may be read at once."""
        peer, size = self.peer, len(data)
        if peer.nagle and (self.received or size > PACKET_BYTES):
            peer.stop_nagle()
        self._has_read(size)
        if peer.dead:
            return
        if peer.tls is not None:
            data = peer.tls.seal(data)
        if peer.pending is not None:  # a PROXY header, as the relay begins, or an answer
            peer.pending = bytes(peer.pending) + data
            return
        sent = send(peer.fd, data)
        if sent != len(data):
            self._keep(data, sent)
        elif is_full and self.chunk < BUFFER_BYTES:
            if self.chunk == CHUNK_BYTES:
                limit_unsent(peer.fd, RESERVE_BYTES)
            self.chunk *= 2

    def _keep(self, data: bytes | memoryview, sent: int) -> None:
        """Keep what the peer has not taken, after `sent` bytes or an error, and read nothing more before it has."""
        peer = self.peer
        if sent == NOTHING:
            sent = 0
        if sent < 0:
            peer.write_failed(-sent)
            return
        self.chunk = max(CHUNK_BYTES, self.chunk // 2)
        peer.pending = bytes(data[sent:])
        if peer.nagle:
            peer.stop_nagle()
        peer.rewatch()
        self.rewatch()

    def _take_note(self) -> None:
        """See what else came of the session than bytes for the peer: answers, an end, a failure."""
        if self.flow is OVER:
            return
        tls = self.tls
        assert tls is not None  # noqa: S101 - it was read from
        owed = tls.outgoing()
        if owed:
            self._answer(owed)
            if self.flow is OVER:
                return
        if tls.failure is not None:
            self._break(tls.failure)
            self._end_reading()
        elif tls.closed:
            self._end_reading()

    def _answer(self, owed: bytes) -> None:
        """Send what the session has to say itself, if it may still be sent."""
        if self.dead or self.shut:
            return
        if self.pending is not None:
            self.pending = bytes(self.pending) + owed
            if len(self.pending) > MOST_PENDING_BYTES:
                self._break(TlsCause.PROTOCOL_ERROR)
                self._end_reading()
            return
        sent = send(self.fd, owed)
        if sent < 0 and sent != NOTHING:
            self.write_failed(-sent)
        elif sent < len(owed):
            self.pending = owed[max(0, sent) :]
            self.rewatch()
            self.peer.rewatch()

    def _break(self, cause: TlsCause | None) -> None:
        """Take note that nothing more is to be expected of the other end, and why if it is not a reset."""
        self.broken = self.dead = True
        self.pending = None
        if cause is not None:
            self.flow.detail = cause

    def pass_fin_on(self) -> None:
        """Half-close this leg if its peer has finished and everything before that is written."""
        if not self.peer.eof or self.pending is not None or self.shut or self.dead:
            return
        tls = self.tls
        if tls is not None and not tls.is_finished:
            owed = tls.finish()
            sent = send(self.fd, owed)
            if sent < 0 and sent != NOTHING:  # the caller draws conclusions just now, and has to do so again
                self.dead = True
                self.truncated = not self.eof and -sent != errno.EPIPE
                self.flow.reactor.deferred.append(self.flow)
                return
            if sent < len(owed):
                self.pending = owed[max(0, sent) :]
                return
        self.shut = True
        finish(self.fd)


def secured(leg: Leg) -> TlsLeg:
    """Return `leg` as one whose peer, or which itself, has TLS; whoever has its events changes the handler."""
    if isinstance(leg, TlsLeg):
        return leg
    other = TlsLeg(leg.flow, leg.fd, leg.is_backend, leg.nagle)
    other.mask, other.received, other.chunk, other.pending = leg.mask, leg.received, leg.chunk, leg.pending
    other.eof, other.broken, other.dead, other.truncated = leg.eof, leg.broken, leg.dead, leg.truncated
    other.shut, other.hung_up = leg.shut, leg.hung_up
    return other


def farewell(leg: Leg) -> None:
    """Send a close_notify on a leg with a session, which is closed next: nothing is missing of what was sent."""
    tls = leg.tls
    if tls is not None and leg.pending is None and not leg.dead and not leg.shut:
        owed = tls.finish()
        if owed:
            send(leg.fd, owed)


def broken_off(server: Leg) -> CloseReason:
    """Return how a flow ends whose backend's leg is broken.

    For want of a close_notify alone, behind the client's own, when nothing was under way (Redis ends so), no backend is
    blamed. Nobody can know that nothing was cut, so the client is reset all the same.
    """
    flow, client = server.flow, server.peer
    if flow.detail == TlsCause.TRUNCATED and client.eof and server.shut and flow.speaker is not client:
        return CloseReason.CLIENT_CLOSED
    return CloseReason.BACKEND_RESET
