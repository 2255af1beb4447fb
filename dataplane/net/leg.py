"""One leg of a flow: reading, writing, and what it sees of every way in which a connection can end.

Theory of operation. A `Leg` is one of the two connections; what is read from it is written to its `peer`.

1. One read, then one write, for each event. What the peer's socket does not take at once is kept in
   `peer.pending` (at most one read's worth), and the leg is not read again before that has gone. Reads grow
   while the peer keeps up, so that a slow reader pins little and a fast one costs few calls. Before they grow, the
   peer's kernel is bounded in what it takes for later (RESERVE_BYTES): else it takes megabytes for a reader that
   takes nothing, and reading on so fast teaches the kernel to open this leg's window for megabytes more.
   A backend's leg is dialled without TCP_NODELAY: nothing is under way that could delay what is sent first. The option
   is set before the second write, or after a first one that may be more than one packet; short connections save it.
2. `eof`: nothing more can be read from the leg. By a FIN: the peer gets a half-close once its `pending` is
   empty, and two FINs end the flow; one never does. Or it is `broken`: by a reset, or another read error.
3. `dead`: nothing can be written to the leg any more. Nothing is lost yet: what it had sent before may still
   be unread, so it is read on to its end, while what its peer sends is read and discarded (a backend that
   answers early and leaves must not cost the client a byte of the answer).
4. Whether a reset came before or after the leg's FIN decides what the other side sees. Reading tells: a FIN
   that came first reads as 0. But a write that meets the reset first takes the error away, and reading would
   then show 0 as well. The write's own error tells in that case, because Linux sets it by the state in
   which the reset found the socket (tcp_reset() in net/ipv4/tcp_input.c): EPIPE after a FIN, and
   ECONNRESET without. `truncated` remembers the latter, and turns the 0 into `broken`.
5. A backend that is dead after its FIN concerns only the client's further bytes: they are discarded until
   the client's own FIN. A client that is dead after its FIN leaves nobody to answer: rule 6.
6. A backend that is broken makes the client the `victim`; a client that is broken, or dead after its FIN,
   the backend. The victim is reset in its turn, but only when its `pending` has been written and its kernel
   has had everything acknowledged, because a reset overtakes what is under way. Until then what it still
   sends is discarded.
7. A leg that is paused or finished may report a hang-up again and again. It is taken out of the epoll then,
   and put back when there is something to do with it. One that has ended stays as it is until it is reported
   again: as a rule the flow is over before that.
8. With TLS on one side or on both, both legs are of another kind, which has the same rules (`net.tls_leg`).
9. Legs only note what they saw. `Flow.settle` alone draws the conclusions, from the flags of both. After an
   end of reading it does so when the batch of events is over: if both legs ended in one batch, as those of
   short connections often do, nothing has to be half-closed before everything is closed.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final

from dataplane.core.reasons import CloseReason
from dataplane.net.calls import (
    BUFFER_BYTES,
    ERR,
    IN,
    NOBODY,
    NOTHING,
    OUT,
    SHORT,
    UNWATCHED,
    finish,
    last_short,
    pump,
    send,
    unsent,
)
from dataplane.net.reactor import Handler
from dataplane.net.sockopts import limit_unsent, set_nodelay

if TYPE_CHECKING:
    from dataplane.net.reactor import Reactor
    from dataplane.net.tls import Channel

PACKET_BYTES: Final = 536
"""What every TCP takes in one packet (RFC 9293, section 3.7.1)."""
OVER: Any = None
"""A leg's flow and peer when they are over."""
CHUNK_BYTES: Final = 32 * 1024
"""The first read's limit, and a slow reader's: what each of thousands of them may pin."""
RESERVE_BYTES: Final = 256 * 1024
"""How much of a peer's data its kernel takes beyond what it may send at once. Bulk is as without a bound; with 128 KiB it
is half of that on a busy machine, as a reader that is not scheduled for a moment finds too little. With 512 KiB reads of
a reader that takes nothing grow so large that three times as much lies here in the end."""


class LegOwner(Handler):
    """A leg's flow, as its legs see it."""

    __slots__ = ("detail", "last", "reactor", "speaker")

    reactor: Reactor
    last: float
    """When a byte was read or written last."""
    speaker: Leg | None
    """The leg that sent last."""
    detail: str
    """What the last failure was, in words: for the access log."""

    def on_first_byte(self, leg: Leg) -> None:
        """Take note of the first byte that `leg` sent."""
        raise NotImplementedError

    def replaces(self, leg: Leg) -> bool:
        """Return whether `leg`'s end is not the flow's."""
        raise NotImplementedError

    def end(self, reason: CloseReason, reset: bool = False, given_back: Leg | None = None) -> None:  # noqa: FBT001, FBT002 - compiled functions have no keyword-only arguments
        """Close both legs, but for one that is given back."""
        raise NotImplementedError


class Leg(Handler):
    """One connection of a flow."""

    __slots__ = (
        "broken",
        "chunk",
        "dead",
        "eof",
        "fd",
        "flow",
        "hung_up",
        "mask",
        "nagle",
        "peer",
        "pending",
        "received",
        "shut",
        "tls",
        "truncated",
    )

    def __init__(self, flow: LegOwner, fd: int, is_backend: bool, nagle: bool = False) -> None:  # noqa: FBT001, FBT002 - compiled functions have no keyword-only arguments
        self.flow = flow
        self.peer: Leg = OVER
        """The other leg; it has none before the relay."""
        self.fd = fd
        self.is_backend = is_backend
        self.nagle = nagle
        """TCP_NODELAY is not set yet: small writes wait for what is under way."""
        self.mask = UNWATCHED
        """What epoll reports: IN, OUT, both, 0 (only errors) or UNWATCHED."""
        self.received = 0
        """Bytes read so far."""
        self.chunk = CHUNK_BYTES
        """The most that is read at once: doubled while the peer takes all of it, halved when it does not."""
        self.tls: Channel | None = None
        """The leg's session; None: what is on the wire is what is passed on."""
        self.pending: bytes | memoryview | None = None
        self.eof = self.broken = self.dead = self.truncated = self.shut = self.hung_up = False

    def on_event(self, events: int) -> None:
        """Read, write or both."""
        if events & OUT and self.pending is not None:
            self._flush()
        if self.eof and self.mask == IN:  # to hear of errors only, as rule 7 says
            self.flow.reactor.epoll.modify(self.fd, 0)
            self.mask = 0
        mask = self.mask
        if mask > 0:
            if mask & IN and events & ~OUT:
                self._read()
        elif not mask and events & ~(IN | OUT):
            self._hang_up(events)

    def on_failure(self) -> None:
        """End the flow: a bug of ours was met."""
        if self.flow is not OVER:
            self.flow.end(CloseReason.LOCAL_ERROR, reset=True)

    def part(self) -> None:
        """Forget flow and peer, which are over: without the cycle, nothing is left for the garbage collector."""
        self.flow = self.peer = OVER

    def _read(self) -> None:
        peer = self.peer
        is_second = peer.nagle and self.received > 0
        size = pump(self.fd, NOBODY if peer.dead else peer.fd, self.chunk, is_second)
        if size > 0:
            if is_second:
                peer.nagle = False
            self._has_read(size)
            if size > PACKET_BYTES:
                if peer.nagle:
                    peer.stop_nagle()
                if size == self.chunk and size < BUFFER_BYTES and not peer.dead:
                    if self.chunk == CHUNK_BYTES:  # only now: a short connection pays nothing for it
                        limit_unsent(peer.fd, RESERVE_BYTES)
                    self.chunk *= 2
        elif size == SHORT:
            self._keep_rest()
        elif size != NOTHING:
            if size:
                self.broken = self.dead = True
                self.pending = None
            else:
                self.broken = self.truncated
            self._end_reading()

    def _has_read(self, size: int) -> None:
        flow = self.flow
        if not self.received:
            flow.on_first_byte(self)
        self.received += size
        flow.last = flow.reactor.now
        flow.speaker = self

    def _keep_rest(self) -> None:
        """Keep what the peer has not taken, and read nothing more before it has."""
        size, _, code = last_short()
        peer = self.peer
        self._has_read(size)
        if code:
            peer.write_failed(code)
            return
        self.chunk = max(CHUNK_BYTES, self.chunk // 2)
        peer.pending = unsent()
        if peer.nagle:
            peer.stop_nagle()
        peer.rewatch()
        self.rewatch()

    def stop_nagle(self) -> None:
        """Have small writes sent at once from now on."""
        self.nagle = False
        set_nodelay(self.fd)

    def _flush(self) -> None:
        pending = self.pending
        assert pending is not None  # noqa: S101 - on_event looked
        sent = send(self.fd, pending)
        if sent < 0:
            if sent != NOTHING:
                self.write_failed(-sent)
            return
        flow = self.flow
        flow.last = flow.reactor.now
        if sent != len(pending):
            self.pending = memoryview(pending)[sent:]
            return
        self.pending = None
        if self.peer.eof:
            flow.settle()
        else:
            self.rewatch()
            self.peer.rewatch()

    def send_first(self, data: bytes) -> None:
        """Write `data`, a PROXY header, ahead of everything else; the relay has not begun.

        An error is not looked at: the first read finds it, and knows whether to try another backend.
        """
        if self.nagle:
            self.stop_nagle()
        sent = send(self.fd, data)
        if sent == NOTHING:
            sent = 0
        if 0 <= sent < len(data):
            self.pending = data[sent:]

    def rewatch(self) -> None:
        """Tell epoll what this leg waits for now."""
        mask = 0
        if not self.eof and self.peer.pending is None:
            mask = IN
        if self.pending is not None:
            mask |= OUT
        if not mask and (self.hung_up or self.dead or (self.eof and self.shut)):
            mask = UNWATCHED
        if mask == self.mask or (self.eof and not mask and self.mask == IN):
            return
        reactor = self.flow.reactor
        if self.mask == UNWATCHED:
            reactor.watch(self.fd, self, mask)
        elif mask == UNWATCHED:
            reactor.unwatch(self.fd)
        else:
            reactor.epoll.modify(self.fd, mask)
        self.mask = mask

    def pass_fin_on(self) -> None:
        """Half-close this leg if its peer has finished and everything before that is written."""
        if self.peer.eof and self.pending is None and not self.shut and not self.dead:
            self.shut = True
            finish(self.fd)

    def write_failed(self, code: int) -> None:
        """Take note that nothing can be written to this leg any more (rules 3 and 4); `code` is the errno."""
        self.dead = True
        self.pending = None
        if not self.eof and code != errno.EPIPE:
            self.truncated = True
        self.flow.settle()

    def _end_reading(self) -> None:
        self.eof = True
        flow = self.flow
        if not flow.replaces(self):
            flow.reactor.deferred.append(flow)

    def _hang_up(self, events: int) -> None:
        """Answer ERR or HUP on a leg of which neither reading nor writing is expected (rule 7).

        A bare HUP after the FIN is a Unix socket's peer that closed: writing to it will tell.
        """
        if self.eof and events & ERR:
            self.dead = True
            self.flow.settle()
        else:
            self.hung_up = True
            self.rewatch()
