"""The relay: two legs of one flow, and every way in which they can end.

Theory of operation. A `Leg` is one of the two connections; what is read from it is written to its `peer`.

1. One read, then one write, for each event. What the peer's socket does not take at once is kept in
   `peer.pending` (at most one read's worth), and the leg is not read again before that has gone.
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

import contextlib
import errno
import select
from typing import TYPE_CHECKING, Final

from dataplane.core.reasons import CloseReason
from dataplane.net.sockopts import DONTWAIT, reset_on_close, unsent_bytes

if TYPE_CHECKING:
    import socket

    from dataplane.net.backend import Backend
    from dataplane.net.dialer import Dial
    from dataplane.net.reactor import Reactor
    from dataplane.net.service import Service

__all__ = ["IN", "LONG_LIVED_S", "OUT", "UNWATCHED", "Flow", "Leg"]

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
ERR: Final = select.EPOLLERR
HUP: Final = select.EPOLLHUP
UNWATCHED: Final = -1
SHUT_WR: Final = 1
VICTIM_CHECK_S: Final = 0.05
LONG_LIVED_S: Final = 15.0
"""A connection that lasts so long gets keepalive on its backend leg; a shorter one never pays for it."""


class Leg:
    """One connection of a flow."""

    __slots__ = (
        "broken",
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

    def __init__(self, flow: Flow, sock: socket.SocketType) -> None:
        self.flow = flow
        self.sock = sock
        self.fd = sock.fileno()
        self.mask = UNWATCHED
        """What epoll reports: IN, OUT, both, 0 (only errors) or UNWATCHED."""
        self.received = 0
        """Bytes read so far."""
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
        self.flow.end(CloseReason.LOCAL_ERROR, reset=True)

    def _read(self) -> None:
        flow = self.flow
        reactor = flow.reactor
        view = reactor.buffer
        try:
            size = self.sock.recv_into(view, 0, DONTWAIT)
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
            peer.pending = memoryview(bytes(view[sent:size]))
            peer.rewatch()
            self.rewatch()

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


class Flow:
    """One client's connection from accept to close."""

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
        "first_at",
        "key",
        "last",
        "over",
        "pooled",
        "queued_s",
        "reactor",
        "reason",
        "server",
        "service",
        "speaker",
        "started_at",
        "tick",
        "tried",
        "tuned",
        "victim",
        "waiting",
    )

    def __init__(self, service: Service, sock: socket.SocketType, address: tuple[str, int] | None) -> None:
        self.service = service
        self.reactor: Reactor = service.reactor
        self.client = Leg(self, sock)
        self.server: Leg | None = None
        self.backend: Backend | None = None
        self.address = address
        """The client's (IP, port), after PROXY the carried one; None on a Unix socket."""
        self.destination: tuple[str, int] | None = None
        """What the client connected to, if a PROXY header said so."""
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
        self.waiting: object | None = None
        """What holds the flow before its relay begins: a header reader, a queue place or a dial."""
        self.reason: CloseReason | None = None
        """Set when the outcome is known but the flow is not over."""
        self.victim: Leg | None = None
        self.speaker: Leg | None = None
        """The leg that sent last."""
        self.tick = 0
        self.deadline = 0.0
        """When a drain ends this flow; 0: not draining."""
        self.started_at = self.last = self.reactor.now
        self.connected_at = self.first_at = self.born_at = self.queued_s = 0.0

    @property
    def client_ip(self) -> str:
        """The client's address without its port; empty on a Unix socket."""
        return self.address[0] if self.address else ""

    def local_address(self) -> tuple[str, int] | None:
        """Return what the client connected to, or what a PROXY header said; None on a Unix socket."""
        if self.destination is not None or self.address is None:
            return self.destination
        name = self.client.sock.getsockname()
        return (name[0], name[1]) if isinstance(name, tuple) else None

    # -- before the relay -----------------------------------------------------------------------------

    def watch_client(self) -> None:
        """Hear of a client that resets while its flow waits."""
        client = self.client
        if client.mask == UNWATCHED:
            self.reactor.watch(client.fd, self, 0)
            client.mask = 0

    def on_event(self, events: int) -> None:
        """Leave: all that epoll reports while nothing is read is a reset or a hang-up of the client."""
        if events & (ERR | HUP):
            self.service.on_waiting_event(self)

    def on_failure(self) -> None:
        """End the flow: a bug of ours was met."""
        self.service.stop_waiting(self)
        self.end(CloseReason.LOCAL_ERROR, reset=True)

    def dialled(self, dial: Dial, code: int) -> None:
        """Go on after a dial that had to be waited for."""
        self.service.dialled(self, dial, code)

    # -- the relay ------------------------------------------------------------------------------------

    def relay(self, backend: Backend, sock: socket.SocketType, mask: int) -> None:
        """Begin to copy between the client and `sock`, of which epoll reports `mask` already.

        `born_at` tells when `sock` was connected, for the pool's `max_age`.
        """
        client = self.client
        server = Leg(self, sock)
        server.mask = mask
        if mask != UNWATCHED:
            self.reactor.handlers[server.fd] = server
        client.peer = server
        server.peer = client
        self.server = server
        self.backend = backend
        if client.mask != UNWATCHED:
            self.reactor.handlers[client.fd] = client
        self.last = self.connected_at = self.reactor.now
        self.reactor.wheel.move(self, self.last + self.service.first_check_s)
        header = self.service.proxy_header
        if header is not None:
            server.send_first(header(self))
        if client.eof:  # the pooled connection before this one turned out dead after the client's FIN
            self.settle()
            return
        server.rewatch()
        client.rewatch()

    def on_first_byte(self, leg: Leg) -> None:
        """Note the first byte that `leg` sent."""
        if leg is self.server:
            backend = self.backend
            assert backend is not None  # noqa: S101 - a server leg has one
            self.first_at = self.reactor.clock()
            if backend.failures:
                self.service.on_backend_success(backend)

    def replaces(self, leg: Leg) -> bool:
        """Return whether `leg`'s end is not the flow's: the pool takes its connection, or gives another."""
        server = self.server
        assert server is not None  # noqa: S101 - both legs exist while relaying
        if leg is server:
            if server.received or self.victim is not None:
                return False
            if self.pooled and not self.client.received:
                self.service.redial(self)
                return True
            if server.broken:
                assert self.backend is not None  # noqa: S101 - a server leg has one
                self.service.on_backend_failure(self.backend, "reset before the first byte")
            return False
        return self.service.reuses and self._gives_back(server)

    def _gives_back(self, server: Leg) -> bool:
        """Return a backend connection to the pool, if the client's exchange is over (DESIGN: reuse)."""
        client = self.client
        if client.broken or client.dead or client.pending is not None or self.speaker is not server:
            return False
        if server.eof or server.dead or server.truncated or server.pending is not None:
            return False
        backend = self.backend
        assert backend is not None  # noqa: S101 - a server leg has one
        self.server = None
        self.end(CloseReason.CLIENT_CLOSED, given_back=server)
        backend.pool.put(server.sock, server.mask, self.born_at)
        return True

    def settle(self) -> None:
        """Draw the conclusions from what the legs have seen; the only place that does."""
        client, server = self.client, self.server
        if self.over or server is None:
            return
        if self.victim is None:
            if server.broken:
                self.victim, self.reason = client, CloseReason.BACKEND_RESET
            elif client.eof and client.dead:
                self.victim, self.reason = server, CloseReason.CLIENT_RESET
        if self.victim is not None:
            self._reset_victim(self.victim)
            return
        if client.eof and server.eof and client.pending is None and server.pending is None:
            self.end(self.reason or CloseReason.CLIENT_CLOSED)
            return
        if self.reason is None and (client.eof or server.eof):
            self.reason = CloseReason.CLIENT_CLOSED if client.eof else CloseReason.BACKEND_CLOSED
            self.last = now = self.reactor.now
            wheel, half_closed_s = self.reactor.wheel, self.service.spec.timeouts.half_closed_s
            if half_closed_s and (not self.tick or self.tick * wheel.resolution_s > now + half_closed_s):
                wheel.move(self, now + half_closed_s)
        for leg, peer in ((client, server), (server, client)):
            if peer.eof and leg.pending is None and not leg.shut and not leg.dead:
                leg.shut = True
                with contextlib.suppress(OSError):  # it was reset: reading it says so
                    leg.sock.shutdown(SHUT_WR)
        client.rewatch()
        server.rewatch()

    def _reset_victim(self, victim: Leg) -> None:
        victim.peer.dead = True
        victim.peer.pending = None
        if victim.dead or (victim.pending is None and not unsent_bytes(victim.fd)):
            self.end(self.reason or CloseReason.LOCAL_ERROR, reset=True)
            return
        victim.peer.rewatch()
        victim.rewatch()
        self.reactor.wheel.move(self, self.reactor.now + VICTIM_CHECK_S)

    # -- deadlines ------------------------------------------------------------------------------------

    def schedule(self) -> None:
        """Put the earliest deadline into the wheel."""
        when = self._due()[0]
        if when:
            self.reactor.wheel.move(self, when)
        else:
            self.reactor.wheel.cancel(self)

    def _due(self) -> tuple[float, CloseReason]:
        """Return when the flow has to end if nothing happens until then, and why; (0, ...) for never."""
        timeouts = self.service.spec.timeouts
        when, reason = 0.0, CloseReason.IDLE_TIMEOUT
        if self.reason is not None and timeouts.half_closed_s:
            when, reason = self.last + timeouts.half_closed_s, CloseReason.HALF_CLOSED_TIMEOUT
        elif timeouts.idle_s:
            when = self.last + timeouts.idle_s
        if timeouts.lifetime_s and not 0 < when < self.started_at + timeouts.lifetime_s:
            when, reason = self.started_at + timeouts.lifetime_s, CloseReason.LIFETIME
        if self.deadline and not 0 < when < self.deadline:
            when, reason = self.deadline, self.service.drain_reason
        return when, reason

    def on_timer(self, now: float) -> None:
        """End the flow if a deadline has really passed; bytes may have moved since it was set."""
        if self.server is None:
            self.service.on_waiting_timeout(self)
            return
        when, reason = self._due()
        if when and when <= now:
            self.end(reason, reset=self.client.pending is not None or self.server.pending is not None)
            return
        if self.victim is not None:
            self._reset_victim(self.victim)
            return
        if not self.tuned:
            long_lived = self.connected_at + LONG_LIVED_S
            if long_lived <= now:
                self.tuned = True
                self.service.tune_long_lived(self)
            elif not when or long_lived < when:
                when = long_lived
        if when:
            self.reactor.wheel.at(self, when)

    # -- the end --------------------------------------------------------------------------------------

    def end(self, reason: CloseReason, *, reset: bool = False, given_back: Leg | None = None) -> None:
        """Close what is open and settle the accounts."""
        reactor = self.reactor
        self.over = True
        if self.tick:
            reactor.wheel.cancel(self)
        client, server = self.client, self.server
        reactor.handlers.pop(client.fd, None)
        client.mask = UNWATCHED
        if reset:
            reset_on_close(client.sock)
        client.sock.close()
        if server is not None:
            reactor.handlers.pop(server.fd, None)
            server.mask = UNWATCHED
            if reset:
                reset_on_close(server.sock)
            server.sock.close()
        self.service.on_end(self, reason, given_back or server)
