"""The flow of one client: two legs, their deadlines, and the one place where their ends are settled.

`dataplane.net.leg` has the theory of operation of the relay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dataplane.core.outlier import Evidence
from dataplane.core.reasons import CloseReason
from dataplane.net.leg import UNWATCHED, Leg
from dataplane.net.sockopts import RDHUP, events_now, reset_on_close, unsent_bytes

if TYPE_CHECKING:
    import socket

    from dataplane.net.backend import Backend
    from dataplane.net.dialer import Dial
    from dataplane.net.reactor import Reactor
    from dataplane.net.service import Service
    from dataplane.net.sockopts import SocketAddress

__all__ = ["LONG_LIVED_S", "Flow"]

VICTIM_CHECK_S: Final = 0.05
PROMPT_S: Final = 1.0
"""A reset so soon after the connection is no answer to silence: servers wait for a login for 2 s (NATS) and more."""
QUIET_S: Final = 1.0
"""What has not moved for so long rests: it may be told that this is the end."""
_CUTS: Final = frozenset({CloseReason.LIFETIME, CloseReason.DRAIN_TIMEOUT, CloseReason.SHUTDOWN})
"""Deadlines that come whatever the flow does."""
LONG_LIVED_S: Final = 15.0
"""A connection that lasts so long gets keepalive on its backend leg; a shorter one never pays for it."""


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
        "detail",
        "dialled_to",
        "first_at",
        "key",
        "last",
        "over",
        "place",
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
        "unsent",
        "victim",
        "waiting",
    )

    def __init__(self, service: Service, sock: socket.SocketType, address: tuple[str, int] | None) -> None:
        self.service = service
        self.reactor: Reactor = service.reactor
        self.client = Leg(self, sock)
        self.server: Leg | None = None
        self.backend: Backend | None = None
        self.dialled_to: SocketAddress | None = None
        """Where the backend connection leads, if another client may have it: no PROXY header was sent on it."""
        self.place = ""  # the chosen backend's address, as configured: whoever has it later has this flow
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
        self.detail = ""
        """What the last failure was, in words: for the access log."""
        self.tick = 0
        self.unsent = 0
        """Bytes that the kernel held for both peers when the last timer looked."""
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
        """Hear of a client that leaves while its flow waits, and leave what it sends in its socket."""
        reactor, client, mask = self.reactor, self.client, self.service.leaving_events
        if client.mask == UNWATCHED:
            reactor.watch(client.fd, self, mask)
        else:
            reactor.handlers[client.fd] = self
            reactor.epoll.modify(client.fd, mask)
        client.mask = mask

    def on_event(self, events: int) -> None:
        """Leave: all that epoll reports while nothing is read is that the client does.

        The kernel is asked again, because the event may be one of a connection that had this descriptor before.
        """
        del events
        reason = self.departure()
        if reason is not None:
            self.service.stop_waiting(self)
            self.end(reason)

    def departure(self) -> CloseReason | None:
        """Return how the client has left, as of now; None if it has not.

        A FIN says that it sends no more. Whether it still waits for an answer, nobody can tell, neither from the FIN
        nor from what is unread before it: so the service's `leaving_events` say what it is taken for.
        """
        events = events_now(self.client.fd, self.service.leaving_events)
        if not events:
            return None
        return CloseReason.ABANDONED if events == RDHUP else CloseReason.CLIENT_GONE

    def on_failure(self) -> None:
        """End the flow: a bug of ours was met."""
        self.service.stop_waiting(self)
        self.end(CloseReason.LOCAL_ERROR, reset=True)

    def dialled(self, dial: Dial, code: int) -> None:
        """Go on after a dial that had to be waited for."""
        self.service.connector.dialled(self, dial, code)

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
        when = self.last + self.service.first_check_s
        self.reactor.wheel.move(self, min(when, self.deadline) if self.deadline else when)
        header = self.service.proxy_header
        if header is not None:
            self.dialled_to = None
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
                self.service.connector.redial(self)
                return True
            if server.broken:
                assert self.backend is not None  # noqa: S101 - a server leg has one
                self.service.on_backend_reset(self.backend, self._reset_evidence())
            return False
        return self.service.reuses and self._gives_back(server)

    def _reset_evidence(self) -> Evidence:
        """Tell whether the client's side can have given cause to a reset before the backend's first byte.

        It has sent neither a byte nor a FIN, its address was not told, and it was not waited for: servers also reset
        who says nothing in time.
        """
        client, prompt = self.client, self.reactor.now - self.connected_at < PROMPT_S
        if prompt and not client.received and not client.eof and self.service.proxy_header is None:
            return Evidence.UNPROVOKED_RESET
        return Evidence.RESET

    def _gives_back(self, server: Leg) -> bool:
        """Return a backend connection to the pool, if the client's exchange is over."""
        client = self.client
        if client.broken or client.dead or client.pending is not None or self.speaker is not server:
            return False
        if server.eof or server.dead or server.truncated or server.pending is not None:
            return False
        self.server = None
        self.end(CloseReason.CLIENT_CLOSED, given_back=server)
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
        elif client.eof and server.eof and client.pending is None and server.pending is None:
            self.end(self.reason or CloseReason.CLIENT_CLOSED)
        else:
            if self.reason is None and (client.eof or server.eof):
                self._half_closed(CloseReason.CLIENT_CLOSED if client.eof else CloseReason.BACKEND_CLOSED)
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
        wheel, half_closed_s = self.reactor.wheel, self.service.spec.timeouts.half_closed_s
        if reason is CloseReason.CLIENT_CLOSED:
            return
        if half_closed_s and (not self.tick or self.tick * wheel.resolution_s > now + half_closed_s):
            wheel.move(self, now + half_closed_s)

    def _reset_victim(self, victim: Leg) -> None:
        victim.peer.dead = True
        victim.peer.pending = None
        if victim.dead or (victim.pending is None and not unsent_bytes(victim.sock)):
            self.end(self.reason or CloseReason.LOCAL_ERROR, reset=True)
            return
        victim.peer.rewatch()
        victim.rewatch()
        self.reactor.wheel.move(self, self.reactor.now + VICTIM_CHECK_S)

    # -- deadlines ------------------------------------------------------------------------------------

    def schedule(self) -> None:
        """Put the earliest deadline into the wheel."""
        wheel = self.reactor.wheel
        if self.victim is not None:  # it is looked at every few ticks already
            return
        if self.server is None:  # what it waits for has a deadline of its own
            if self.deadline and not 0 < self.tick * wheel.resolution_s <= self.deadline:
                wheel.move(self, self.deadline)
            return
        when = self._due()[0]
        if when:
            wheel.move(self, when)
        else:
            wheel.cancel(self)

    def _due(self) -> tuple[float, CloseReason]:
        """Return when the flow has to end if nothing happens until then, and why; (0, ...) for never."""
        timeouts = self.service.spec.timeouts
        when, reason = 0.0, CloseReason.IDLE_TIMEOUT
        if self.reason is CloseReason.BACKEND_CLOSED and timeouts.half_closed_s:
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
        progress = self._is_being_read()
        when, reason = self._due()
        if progress and (self.victim is not None or 0 < when <= now):
            self.last = now
            when, reason = self._due()
        if when and when <= now:
            self.end(reason, reset=self.victim is not None or self._is_cut_short(reason, now))
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

    def _is_being_read(self) -> bool:
        """Return whether a peer's kernel has taken or been given anything since the last look.

        Megabytes may wait in ours. A reader that takes them slowly is not idle, although we write nothing.
        """
        assert self.server is not None  # noqa: S101 - asked while relaying
        unsent = unsent_bytes(self.client.sock) + unsent_bytes(self.server.sock)
        moved = unsent != self.unsent
        self.unsent = unsent
        return moved

    def _is_cut_short(self, reason: CloseReason, now: float) -> bool:
        """Return whether a deadline comes in the middle of something, so that a FIN would be taken for its end.

        Held back by a slow reader, or, where it is not silence that ends the flow, something moved just now.
        """
        assert self.server is not None  # noqa: S101 - asked while relaying
        if self.client.pending is not None or self.server.pending is not None:
            return True
        return reason in _CUTS and self.speaker is not None and now - self.last < QUIET_S

    # -- the end --------------------------------------------------------------------------------------

    def end(self, reason: CloseReason, *, reset: bool = False, given_back: Leg | None = None) -> None:
        """Close what is open and settle the accounts; what is over already stays so."""
        if self.over:
            return
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
        self.service.on_end(self, reason, given_back or server, given_back is not None)
        for leg in (client, given_back or server):
            if leg is not None:
                leg.part()
