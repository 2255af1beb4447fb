"""One leg of a flow: reading, writing, and what it sees of every way in which a connection can end.

Theory of operation. A `Leg` is one of the two connections; what is read from it is written to its `peer`.

1. One read, then one write, for each event. What the peer's socket does not take at once is kept in
   `peer.pending` (at most one read's worth), and the leg is not read again before that has gone. Reads grow
   while the peer keeps up, so that a slow reader pins little and a fast one costs few calls. Before they grow, the
   peer's kernel is bounded in what it takes for later (RESERVE_BYTES): else it takes megabytes for a reader that
   takes nothing, and reading on so fast teaches the kernel to open this leg's window for megabytes more.
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
   and put back when there is something to do with it.
8. Legs only note what they saw. `Flow.settle` alone draws the conclusions, from the flags of both. After an
   end of reading it does so when the batch of events is over: if both legs ended in one batch, as those of
   short connections often do, nothing has to be half-closed before everything is closed.
"""

from __future__ import annotations

import errno
import select
from typing import TYPE_CHECKING, Final, Protocol

from dataplane.core.reasons import CloseReason
from dataplane.net.reactor import BUFFER_BYTES, Deferred
from dataplane.net.sockopts import DONTWAIT, limit_unsent

if TYPE_CHECKING:
    import socket

    from dataplane.net.reactor import Reactor

__all__ = ["ERR", "HUP", "IN", "OUT", "UNWATCHED", "Leg", "LegOwner"]

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
ERR: Final = select.EPOLLERR
HUP: Final = select.EPOLLHUP
UNWATCHED: Final = -1
SHUT_WR: Final = 1
CHUNK_BYTES: Final = 32 * 1024
"""The first read's limit, and a slow reader's: what each of thousands of them may pin."""
RESERVE_BYTES: Final = 256 * 1024
"""How much of a peer's data its kernel takes beyond what it may send at once. Bulk is as without a bound; with 128 KiB it
is half of that on a busy machine, as a reader that is not scheduled for a moment finds too little. With 512 KiB reads of
a reader that takes nothing grow so large that three times as much lies here in the end."""


class LegOwner(Deferred, Protocol):
    """A leg's flow."""

    reactor: Reactor
    last: float
    """When a byte was read or written last."""
    speaker: Leg | None
    """The leg that sent last."""

    def on_first_byte(self, leg: Leg) -> None:
        """Take note of the first byte that `leg` sent."""

    def replaces(self, leg: Leg) -> bool:
        """Return whether `leg`'s end is not the flow's."""

    def end(self, reason: CloseReason, *, reset: bool = False) -> None:
        """Close both legs."""


class Leg:
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
        "peer",
        "pending",
        "received",
        "shut",
        "sock",
        "truncated",
    )

    peer: Leg

    def __init__(self, flow: LegOwner, sock: socket.SocketType) -> None:
        self.flow = flow
        self.sock = sock
        self.fd = sock.fileno()
        self.mask = UNWATCHED
        """What epoll reports: IN, OUT, both, 0 (only errors) or UNWATCHED."""
        self.received = 0
        """Bytes read so far."""
        self.chunk = CHUNK_BYTES
        """The most that is read at once: doubled while the peer takes all of it, halved when it does not."""
        self.pending: memoryview | None = None
        self.eof = self.broken = self.dead = self.truncated = self.shut = self.hung_up = False

    def on_event(self, events: int) -> None:
        """Read, write or both."""
        if events & OUT and self.pending is not None:
            self._flush()
        mask = self.mask
        if mask > 0:
            if mask & IN and events & ~OUT:
                self._read()
        elif not mask and events & ~(IN | OUT):
            self._hang_up(events)

    def on_failure(self) -> None:
        """End the flow: a bug of ours was met."""
        if hasattr(self, "flow"):
            self.flow.end(CloseReason.LOCAL_ERROR, reset=True)

    def part(self) -> None:
        """Forget flow and peer, which are over: without the cycle, nothing is left for the garbage collector."""
        del self.flow
        if hasattr(self, "peer"):
            del self.peer

    def _read(self) -> None:
        flow = self.flow
        reactor = flow.reactor
        view = reactor.buffer
        try:
            size = self.sock.recv_into(view, self.chunk, DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self.broken = self.dead = True
            self.pending = None
            self._ended()
            return
        if not size:
            self.broken = self.truncated
            self._ended()
            return
        if not self.received:
            flow.on_first_byte(self)
        self.received += size
        flow.last = reactor.now
        flow.speaker = self
        peer = self.peer
        if peer.dead:
            return
        try:
            sent = peer.sock.send(view[:size], DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            peer.write_failed(error)
            return
        if sent != size:
            self.chunk = max(CHUNK_BYTES, self.chunk // 2)
            peer.pending = memoryview(bytes(view[sent:size]))
            peer.rewatch()
            self.rewatch()
        elif size == self.chunk and size < BUFFER_BYTES:
            self._read_more()

    def _read_more(self) -> None:
        """Let reads grow: the peer keeps up."""
        if self.chunk == CHUNK_BYTES:  # only now: a short connection pays nothing for it
            limit_unsent(self.peer.sock, RESERVE_BYTES)
        self.chunk *= 2

    def _flush(self) -> None:
        pending = self.pending
        assert pending is not None  # noqa: S101 - on_event looked
        try:
            sent = self.sock.send(pending, DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            self.write_failed(error)
            return
        flow = self.flow
        flow.last = flow.reactor.now
        if sent != len(pending):
            self.pending = pending[sent:]
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
        try:
            sent = self.sock.send(data, DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            return
        if sent != len(data):
            self.pending = memoryview(data)[sent:]

    def rewatch(self) -> None:
        """Tell epoll what this leg waits for now."""
        mask = 0
        if not self.eof and self.peer.pending is None:
            mask = IN
        if self.pending is not None:
            mask |= OUT
        if not mask and (self.hung_up or self.dead or (self.eof and self.shut)):
            mask = UNWATCHED
        if mask == self.mask:
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
            try:  # noqa: SIM105 - suppress() is three calls, for each connection
                self.sock.shutdown(SHUT_WR)
            except OSError:
                pass  # it was reset: reading it says so

    def write_failed(self, error: OSError) -> None:
        """Take note that nothing can be written to this leg any more (rules 3 and 4)."""
        self.dead = True
        self.pending = None
        if not self.eof and error.errno != errno.EPIPE:
            self.truncated = True
        self.flow.settle()

    def _ended(self) -> None:
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
