"""Asking a backend for TLS as its PostgreSQL client has asked us, before a relay copies anything (`core.postgres`, rule 3)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Protocol

from dataplane.core.postgres import SSL_REQUEST, YES
from dataplane.core.reasons import CloseReason
from dataplane.net.calls import IN, UNWATCHED, close, receive
from dataplane.net.reactor import Handler

if TYPE_CHECKING:
    from dataplane.net.leg import Leg
    from dataplane.net.reactor import Reactor


class _Service(Protocol):
    @property
    def connector(self) -> Any: ...


class _Flow(Protocol):
    """The flow whose backend is asked (`net.flow.Flow`)."""

    reactor: Reactor
    client: Leg
    server: Leg | None
    backend: Any
    pooled: bool
    dialled_to: Any

    @property
    def service(self) -> _Service: ...
    def watch_client(self) -> None: ...
    def end(self, reason: CloseReason, reset: bool = False, given_back: Leg | None = None) -> None: ...  # noqa: FBT001, FBT002 - compiled functions have no keyword-only arguments


class TlsRequest(Handler):
    """Stands in for the backend's leg until the answer is there; the client's leg is not read meanwhile.

    No byte of the client's has been sent yet, so a backend that does not agree is a failed attempt, and another is tried. One
    that does not answer is one that is silent: the flow's own deadlines hold.
    """

    __slots__ = ("_flow", "_server")

    def __init__(self, flow: _Flow, server: Leg) -> None:
        self.is_backend = True
        self._flow = flow
        self._server = server

    def start(self) -> None:
        """Ask; an error of that is found when the answer is read."""
        flow, server = self._flow, self._server
        reactor = flow.reactor
        flow.dialled_to = None  # another client could not begin on it
        server.send_first(SSL_REQUEST)
        if server.mask == UNWATCHED:
            reactor.watch(server.fd, self, IN)
        else:
            reactor.handlers.put(server.fd, self)
            reactor.epoll.modify(server.fd, IN)
        server.mask = IN
        flow.watch_client()

    def on_event(self, events: int) -> None:  # noqa: ARG002 - a hint; the call tells
        """Take the answer, and let the relay begin."""
        flow, server = self._flow, self._server
        answer, code = receive(server.fd, 1)
        if code == errno.EAGAIN:
            return
        if answer == YES:
            flow.reactor.handlers.put(server.fd, server)
            flow.reactor.handlers.put(flow.client.fd, flow.client)
            server.rewatch()
            flow.client.rewatch()
        elif not answer and flow.pooled:
            flow.service.connector.redial(flow)
        else:
            said = f"answers {answer!r}" if answer else "ends the connection"
            flow.reactor.forget(server.fd)
            close(server.fd)
            flow.server = None
            words = f"the backend {said} to PostgreSQL's SSLRequest, and the client was promised TLS"
            flow.service.connector.try_another(flow, flow.backend, errno.EPROTO, words)

    def on_failure(self) -> None:
        """End the flow: a bug of ours was met."""
        self._flow.end(CloseReason.LOCAL_ERROR, reset=True)
