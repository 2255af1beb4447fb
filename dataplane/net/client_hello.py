"""Waiting for what a TLS client sends first, and looking at it without taking it: the backend gets every byte.

Theory of operation:

1. A level-triggered epoll would report bytes that are left in their socket again and again. So the socket is reported when
   something new comes (EPOLLET), and over TCP only when as much is there as the ClientHello lacks at least (SO_RCVLOWAT,
   which tcp_poll() heeds): a client that dribbles wakes nobody for each of its bytes, and costs no more than a silent one.
2. All that is taken is a request of PostgreSQL's (`core.postgres`), which nobody but us can answer.
3. A client that finishes before its ClientHello is complete, or sends something else, has told all that it will tell. If a
   service takes clients who do not speak TLS, that is whose it is.
"""

from __future__ import annotations

import errno
import select
import socket
from typing import TYPE_CHECKING, Final

from dataplane.core.client_hello import MAX_BYTES, ClientHello, HelloError, read_hello
from dataplane.core.postgres import NO, REQUEST_BYTES, SSL_REQUEST, YES, read_request
from dataplane.core.reasons import CloseReason
from dataplane.net.calls import ERR, IN, RDHUP, UNWATCHED, receive, send, set_option
from dataplane.net.flow import end_if_late
from dataplane.net.reactor import Handler
from dataplane.net.sockopts import events_now

if TYPE_CHECKING:
    from collections.abc import Callable

    from dataplane.net.flow import Flow

PEEK_BYTES: Final = 4096
"""Looked at first: nearly every ClientHello is smaller."""
_WATCHED: Final = IN | RDHUP | select.EPOLLET
_SOCKET: Final = int(socket.SOL_SOCKET)
_LOWAT: Final = int(socket.SO_RCVLOWAT)


class HelloReader(Handler):
    """Waits for the ClientHello of one client (`net.flow.Waiting`).

    Args:
        flow: Whose.
        route: Called with the flow and what it has said, once, unless it ends before; None: nothing that is a ClientHello.
    """

    __slots__ = ("_lowat", "_may_ask_gss", "_route", "flow")

    def __init__(self, flow: Flow, route: Callable[[Flow, ClientHello | None], None]) -> None:
        self.is_backend = False
        self.flow = flow
        self._route = route
        self._lowat = 1
        """How many bytes have to be there before the kernel reports any."""
        self._may_ask_gss = True

    def start(self) -> None:
        """Look at what is there already, which is all of it from most clients; else wait, up to the deadline."""
        flow = self.flow
        flow.waiting = self
        flow.last = flow.reactor.now
        self.on_event(0)
        if flow.waiting is self:
            self._wait()

    def _wait(self) -> None:
        flow = self.flow
        reactor, client = flow.reactor, flow.client
        if client.mask == UNWATCHED:
            client.mask = IN
            reactor.watch(client.fd, self, _WATCHED)
        else:  # its PROXY header has been waited for
            client.mask = IN
            reactor.handlers.put(client.fd, self)
            reactor.epoll.modify(client.fd, _WATCHED)
        timeout_s = flow.service.spec.timeouts.client_hello_s
        when = reactor.now + timeout_s if timeout_s else flow.deadline
        if when:
            reactor.wheel.move(flow, min(when, flow.deadline) if flow.deadline else when)

    def on_event(self, events: int) -> None:
        """Look at what there is."""
        flow = self.flow
        fd = flow.client.fd
        size = PEEK_BYTES
        while True:
            seen, code = receive(fd, size, leave=True)
            if code == errno.EAGAIN:
                return
            if code:
                flow.end(CloseReason.CLIENT_GONE)
                return
            try:
                found = self._look(seen) if seen else self._lowat + 1
            except HelloError as error:
                flow.detail = str(error)
                self._done(None)
                return
            if isinstance(found, ClientHello):
                self._done(found)
                return
            if found and len(seen) < size:
                break
            size = MAX_BYTES if found else PEEK_BYTES
        ended = events_now(fd, RDHUP) if events & ~IN else 0
        if ended & ERR:  # what had come before the reset can be read still
            flow.end(CloseReason.CLIENT_GONE)
        elif ended:
            flow.detail = "the client has finished before its ClientHello was complete"
            self._done(None)
        elif found > self._lowat and flow.address is not None:
            self._lowat = found
            set_option(fd, _SOCKET, _LOWAT, found)

    def on_failure(self) -> None:
        """End the flow: a bug of ours was met."""
        self.flow.end(CloseReason.LOCAL_ERROR, reset=True)

    def cancel(self, flow: Flow) -> None:
        """Do nothing: the socket is the flow's."""

    def on_timeout(self, flow: Flow, now: float) -> None:
        """End a flow whose ClientHello is late."""
        limit_s = flow.service.spec.timeouts.client_hello_s
        end_if_late(flow, now, flow.last, limit_s, CloseReason.CLIENT_HELLO_TIMEOUT)

    def stop(self) -> None:
        """Wait no longer, and leave the client's socket as it was."""
        self._leave()
        client = self.flow.client
        if client.mask != UNWATCHED:
            self.flow.reactor.epoll.modify(client.fd, 0)

    def _leave(self) -> None:
        """Wait no longer; what epoll reports of the socket is for the caller to change."""
        flow = self.flow
        reactor, client = flow.reactor, flow.client
        if flow.tick:
            reactor.wheel.cancel(flow)
        flow.waiting = None
        if self._lowat > 1:
            set_option(client.fd, _SOCKET, _LOWAT, 1)
        if client.mask != UNWATCHED:
            client.mask = 0
            reactor.handlers.put(client.fd, flow)

    def _look(self, seen: bytes) -> ClientHello | int:
        """Return the ClientHello, or how many bytes there have to be at least; 0: a request was answered, look again."""
        if seen[0] or self.flow.tls_asked:  # its requests begin with a byte of zero
            return read_hello(seen)
        request = read_request(seen)
        if not request:
            return read_hello(seen)
        if isinstance(request, int):
            return request
        asked = request == SSL_REQUEST
        if not asked and not self._may_ask_gss:
            raise HelloError("it asks for encryption with GSSAPI a second time")
        fd = self.flow.client.fd
        receive(fd, REQUEST_BYTES)
        send(fd, YES if asked else NO)  # an error is found when what follows is read
        self.flow.tls_asked = asked
        self._may_ask_gss = False
        return 0

    def _done(self, hello: ClientHello | None) -> None:
        flow = self.flow
        self._leave()
        self._route(flow, hello)
        client = flow.client
        if flow.over:
            return
        if not client.mask:  # a relay that has begun has told epoll already what it wants
            flow.reactor.epoll.modify(client.fd, 0)
        elif (
            flow.server is not None and client.mask == IN
        ):  # there is something to read: no event is waited for
            client.on_event(IN)
