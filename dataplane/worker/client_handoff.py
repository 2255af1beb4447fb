"""Workers that hand accepted clients over to the one that has the fewest (`balance_workers`).

Theory of operation:

1. Each worker has an inbox: a pair of Unix sockets that keep messages apart (SOCK_SEQPACKET). The supervisor makes
   it, lends the reading end like a listening socket (`supervisor.lending`), and gives the writing end to all.
2. Who has accepted a client compares its own number of the service's clients with the others', in shared memory
   (`core.fair_share`). If another should have it, the socket goes into that one's inbox with the service's name and
   the client's address, and ours is closed. Nothing was read from it, and nothing was counted: PROXY header, limits
   and accounts begin in the receiver. What was handed over is not handed over again.
3. What is still in an inbox counts as its owner's, else everybody would send to the same one before it has looked.
   The kernel tells (SIOCOUTQ), so there is nothing to put right when somebody dies.
4. Nobody waits: if the inbox is full, or anything else is in the way, the client is served where it was accepted.
5. An inbox outlives its worker, as listening sockets do: whoever is in it goes to a sibling, or to the successor.
6. A service that goes, or gives the option up, is not handed over from the moment when that is staged (`disarm`); and
   when all workers have staged it, each empties its inbox before it changes. One that comes is handed over as soon
   as the supervisor says that all workers run it (`arm`). So a receiver always knows the service.
7. A client of a listener that several services share is handed over when it has been routed: only then it is known whose it
   is. Its ClientHello is still in its socket, and the receiver routes it again, and keeps it.
8. Without the option, listeners call the service itself (`entrance`), and nothing here is called.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from dataplane.core.fair_share import receiver
from dataplane.core.reasons import CloseReason
from dataplane.ipc.shared_counters import CLIENTS, Board
from dataplane.net.calls import IN, Address, adopt, close
from dataplane.net.flow import Flow
from dataplane.net.leg import Leg
from dataplane.net.listener import Entrance
from dataplane.net.reactor import Handler, Reactor
from dataplane.net.service import Service

DONTWAIT: Final = socket.MSG_DONTWAIT
BATCH: Final = 64
"""Clients taken for one event, as a listener does."""
PAUSE_S: Final = 0.1
MESSAGE_BYTES: Final = 1024
"""More than a name and an address."""
CLIENT_BYTES: Final = 768
"""What the kernel charges for a message of up to 191 bytes, its own bookkeeping included (Linux 6.1 and 6.18); where
it is more, a client in an inbox counts as more than one, for as long as it is there."""
_INT: Final = struct.Struct("i")
"""A descriptor in a message, and the kernel's answer about a socket."""
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_INT.size)


class Siblings:
    """The other workers that accept: where they count, and where they take clients."""

    def __init__(self) -> None:
        self.apart = False
        """Everybody drains: nothing is handed over any more, and whoever is in an inbox is its reader's alone."""
        self._rows: list[int] = []
        self._inboxes: list[socket.socket] = []

    def meet(self, rows: Sequence[int] | None, fds: Iterable[int]) -> None:
        """Know these from now on: their rows of the shared counters (None: hand nothing over any more), and inboxes.

        Of these `fds` are the writing ends, one for each, which are ours to close.
        """
        for inbox in self._inboxes:
            inbox.close()
        self.apart = rows is None
        self._rows = list(rows or ())
        self._inboxes = [socket.socket(fileno=fd) for fd in fds]

    def choose(self, own: int, cells: memoryview) -> socket.socket | None:
        """Return the inbox of whoever should take a client, if we have `own`, and all by row `cells`; None: we should."""
        counts = [cells[row] for row in self._rows]
        if receiver(own, counts) is None:
            return None
        inboxes = self._inboxes
        chosen = receiver(own, [count + _queued(inbox) for count, inbox in zip(counts, inboxes, strict=True)])
        return None if chosen is None else inboxes[chosen]


def _queued(inbox: socket.socket) -> int:
    """Return about how many clients nobody has taken yet."""
    held: int = _INT.unpack(fcntl.ioctl(inbox, termios.TIOCOUTQ, bytes(_INT.size)))[0]
    return -(-held // CLIENT_BYTES)


def _hand_over(inbox: socket.socket, fd: int, service: str, address: Address, listener: str = "") -> bool:
    """Send a client's descriptor, and close it here; False: it could not be sent, and is still open.

    With `listener` it was routed there, and what it has said is still in its socket.
    """
    host, port = address or ("", 0)
    try:
        inbox.sendmsg(
            [f"{service}\n{host}\n{port}\n{listener}".encode()],
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _INT.pack(fd))],
            DONTWAIT | socket.MSG_NOSIGNAL,
        )
    except OSError:  # full, or too many descriptors under way: the reason does not matter
        return False
    close(fd)
    return True


class ClientBalancer:
    """Stands between the listeners and one service, and hands clients over that another worker should have."""

    __slots__ = ("_armed", "_board", "_cells", "_is_seen", "_log", "_service", "_siblings", "_tells")

    def __init__(self, service: Service, board: Board, siblings: Siblings) -> None:
        self._service = service
        self._board = board
        self._siblings = siblings
        self._cells = board.part(CLIENTS, None)
        self._is_seen = False
        """Others see our count, and we theirs."""
        self._armed = False
        self._tells = False
        """Told of each client that goes, before `_log` is."""
        self._log: Callable[[Flow, CloseReason, Leg | None], None] | None = None

    @property
    def entrance(self) -> Entrance:
        """What listeners call with a client: for a service that does without balancing, the service's own."""
        return self.accepted if self._service.spec.balance_workers else self._service.accepted

    def use(self, column: int | None) -> None:
        """Count in another column from now on, and take note of whether the service is balanced."""
        service, balanced = self._service, self._service.spec.balance_workers
        self._cells[self._board.row] = 0
        self._cells = self._board.part(CLIENTS, column)
        self._is_seen = column is not None
        if not self._is_seen:
            self.disarm()  # nobody's count could be told from none
        if balanced and not self._tells:
            self._log, service.access_log = service.access_log, self._ended
        elif self._tells and not balanced:
            service.access_log = self._log
        self._tells = balanced
        self.publish()

    def arm(self) -> None:
        """Hand clients over from now on, if that is asked for."""
        self._armed = self._service.spec.balance_workers and self._is_seen

    def disarm(self) -> None:
        """Serve whoever is accepted here."""
        self._armed = False

    def accepted(self, fd: int, address: Address) -> None:
        """Hand a client over to a worker that has fewer, or serve it here."""
        service = self._service
        if self._armed:
            inbox = self._siblings.choose(len(service.flows), self._cells)
            if inbox is not None and _hand_over(inbox, fd, service.name, address):
                service.totals.handed_over += 1
                return
        self.serve(fd, address)

    def hand_over_routed(self, flow: Flow, listener: str) -> bool:
        """Hand a client over who is the service's since it was routed; False: it is to be served here.

        What was taken of it is known here alone: a PROXY header, or a request of PostgreSQL's.
        """
        service, fd = self._service, flow.client.fd
        if not self._armed or flow.tls_asked or service.proxy_required:
            return False
        inbox = self._siblings.choose(len(service.flows) - 1, self._cells)
        if inbox is None:
            return False
        service.reactor.unwatch(fd)
        if not _hand_over(inbox, fd, service.name, flow.address, listener):
            service.reactor.watch(fd, flow, 0)
            flow.client.mask = 0
            return False
        service.flows.discard(flow)
        service.reactor.wheel.cancel(flow)
        service.totals.handed_over += 1
        flow.over = True
        flow.client.part()
        return True

    def serve(self, fd: int, address: Address) -> None:
        """Serve a client here, whoever has accepted it."""
        self._service.accepted(fd, address)
        self.publish()

    def _ended(self, flow: Flow, reason: CloseReason, server: Leg | None) -> None:
        self.publish()
        if self._log is not None:
            self._log(flow, reason, server)

    def publish(self) -> None:
        """Let the others see how many clients there are."""
        service = self._service
        self._cells[self._board.row] = len(service.flows) if service.spec.balance_workers else 0


class Inbox(Handler):
    """The reading end of an inbox, ours to close; `deliver` takes the clients (dataplane.net.reactor.Timed)."""

    __slots__ = ("_deliver", "_fd", "_paused", "_reactor", "_sock", "tick")

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        deliver: Callable[[str, int, Address, str], None],
    ) -> None:
        self.is_backend = False
        self._reactor = reactor
        self._sock = sock
        self._fd = sock.fileno()
        self._deliver = deliver
        self._paused = False
        self.tick = 0
        reactor.watch(self._fd, self, IN)

    def on_event(self, events: int) -> None:  # noqa: ARG002 - a hint; the call tells
        """Take a batch."""
        for _ in range(BATCH):
            if self._paused or not self._take():
                return

    def on_failure(self) -> None:
        """Try again soon: a bug of ours was met with one client, and nobody else serves the others."""
        self._reactor.watch(self._fd, self, 0)
        self._pause()

    def on_timer(self, now: float) -> None:
        """Go on after a pause, unless the next client's descriptor might not be had."""
        if self._reactor.is_short():
            self._reactor.wheel.at(self, now + PAUSE_S)
            return
        self._paused = False
        self._reactor.epoll.modify(self._fd, IN)

    def empty(self) -> None:
        """Take all who are there, unless descriptors run short."""
        while not self._paused and self._take():
            pass

    def close(self) -> None:
        """Leave those who are there to whoever else has a copy."""
        self._reactor.wheel.cancel(self)
        self._reactor.unwatch(self._fd)
        self._sock.close()

    def _take(self) -> bool:
        """Take the next client; False: nobody is there."""
        try:
            data, ancillary, _, _ = self._sock.recvmsg(
                MESSAGE_BYTES, _ANCILLARY_BYTES, DONTWAIT | socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return False
        if not data:  # every writing end is closed: nobody will ever come again
            self._reactor.unwatch(self._fd)
            return False
        # There is none if the kernel had no descriptor left for us, which `accept_ceiling` prevents.
        for _, _, content in ancillary:
            fd = _INT.unpack(content)[0]
            service, host, port, listener = data.decode().split("\n")
            family = socket.AF_INET6 if ":" in host else socket.AF_INET if host else socket.AF_UNIX
            adopt(fd, family)
            self._deliver(service, fd, (host, int(port)) if host else None, listener)
            if fd >= self._reactor.accept_ceiling:
                self._pause()
        return True

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._reactor.epoll.modify(self._fd, 0)
            self._reactor.wheel.at(self, self._reactor.now + PAUSE_S)
