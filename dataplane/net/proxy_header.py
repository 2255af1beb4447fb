"""PROXY headers: reading a client's, and not a byte more, and making a backend's."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from dataplane.core.proxy_protocol.decode import decode
from dataplane.core.proxy_protocol.fields import (
    CLIENT_CERT_CONN,
    CLIENT_CERT_SESS,
    CLIENT_SSL,
    Kind,
    Ssl,
    passed_on,
)
from dataplane.core.proxy_protocol.header import NEED_DATA, Field, ProxyError
from dataplane.core.proxy_protocol.v1 import encode_v1
from dataplane.core.proxy_protocol.v2 import encode_v2, with_fields
from dataplane.core.reasons import CloseReason
from dataplane.core.spec import ProxySend
from dataplane.net.calls import IN, own_name, receive
from dataplane.net.flow import end_if_late
from dataplane.net.reactor import Handler

if TYPE_CHECKING:
    from collections.abc import Callable

    from dataplane.core.spec import ProxySpec
    from dataplane.net.flow import Flow

PEEK_BYTES: Final = 4096
NAME_MAX: Final = 255
"""Characters of a certificate's name that are told; X.520 has 64 (ub-common-name)."""


class HeaderReader(Handler):
    """Waits for the header of one client (`net.flow.Waiting`).

    What has arrived is peeked at first, and only the header's own bytes are taken: whatever follows stays in the
    socket for the relay. While the header is incomplete, all that is there belongs to it and is taken, so that the
    level-triggered epoll does not report the same bytes again and again.
    """

    __slots__ = ("flow", "head")

    def __init__(self, flow: Flow) -> None:
        self.is_backend = False
        self.flow = flow
        self.head = b""

    def start(self) -> None:
        """Refuse a peer that is not trusted; else wait for its header, up to the deadline."""
        flow = self.flow
        service, client = flow.service, flow.client
        if flow.address is not None and flow.address[0] not in service.trusted:
            flow.end(CloseReason.PROXY_UNTRUSTED)
            return
        flow.waiting = self
        client.mask = IN
        service.reactor.watch(client.fd, self, IN)
        timeout_s = service.spec.timeouts.proxy_header_s
        if timeout_s:
            service.reactor.wheel.at(flow, service.reactor.now + timeout_s)

    def on_event(self, events: int) -> None:  # noqa: ARG002 - a hint; the call tells
        """Read on."""
        fd = self.flow.client.fd
        seen, code = receive(fd, PEEK_BYTES, leave=True)
        if code == errno.EAGAIN:
            return
        if code:
            self.flow.end(CloseReason.CLIENT_GONE)
            return
        if not seen:
            self.flow.detail = "the peer left before the header was complete"
            self.flow.end(CloseReason.PROXY_INVALID)
            return
        try:
            result = decode(self.head + seen)
        except ProxyError as error:
            self.flow.detail = str(error)
            self.flow.end(CloseReason.PROXY_INVALID)
            return
        if result is NEED_DATA:
            self.head += receive(fd, len(seen))[0]
            return
        header, used = result
        receive(fd, used - len(self.head))
        if header.endpoints is not None:
            self.flow.address = header.endpoints.source
            self.flow.destination = header.endpoints.destination
        if self.flow.service.spec.proxy.pass_tlvs:
            self.flow.fields = header.fields
        self._done()

    def on_failure(self) -> None:
        """End the flow: a bug of ours was met."""
        self.flow.end(CloseReason.LOCAL_ERROR, reset=True)

    def cancel(self, flow: Flow) -> None:
        """Do nothing: the socket is the flow's."""

    def on_timeout(self, flow: Flow, now: float) -> None:
        """End a flow whose header is late."""
        limit_s = flow.service.spec.timeouts.proxy_header_s
        end_if_late(flow, now, flow.started_at, limit_s, CloseReason.PROXY_TIMEOUT)

    def _done(self) -> None:
        flow = self.flow
        reactor = flow.reactor
        reactor.wheel.cancel(flow)
        flow.waiting = None
        flow.client.mask = 0
        reactor.handlers.put(flow.client.fd, flow)
        reactor.epoll.modify(flow.client.fd, 0)
        flow.service.admit(flow)


def _destination(flow: Flow) -> tuple[str, int] | None:
    """Return what a client connected to, or what its own PROXY header said; None on a Unix socket."""
    if flow.destination is not None or flow.address is None:
        return flow.destination
    return own_name(flow.client.fd)


def _v2(flow: Flow) -> bytes:
    return encode_v2(flow.address, _destination(flow))


def _v2_with_tls(flow: Flow) -> bytes:
    if flow.client.tls is None and flow.hello is None:
        return encode_v2(flow.address, _destination(flow))
    return _v2_with_fields(flow)


def _v2_with_fields(flow: Flow) -> bytes:
    """Make a header with what else there is to say of a client."""
    proxy = flow.service.spec.proxy
    own = _tls_fields(flow) if proxy.send_tls else ()
    header = encode_v2(flow.address, _destination(flow))
    return with_fields(header, passed_on(flow.fields, own), checksum=proxy.checksum)


def _tls_fields(flow: Flow) -> tuple[Field, ...]:
    """Return what there is to say of a client's TLS, if it ends here; else its name, if that was looked at.

    Which protocol both ends agree on, and what else, nobody knows whose bytes are passed on.
    """
    channel, hello = flow.client.tls, flow.hello
    if channel is None:
        name = "" if hello is None else hello.sni
        return (Field(Kind.AUTHORITY, name.encode()),) if name else ()
    said = ((Kind.AUTHORITY, channel.sni), (Kind.ALPN, channel.alpn))
    peer, client = channel.peer_name, CLIENT_SSL
    if peer is not None:
        client |= CLIENT_CERT_SESS if channel.resumed else CLIENT_CERT_SESS | CLIENT_CERT_CONN
    ssl = Ssl(client, peer is not None, channel.version, (peer or "")[:NAME_MAX], channel.cipher)
    return (*(Field(kind, text.encode()) for kind, text in said if text), Field(Kind.SSL, ssl.encode()))


def header_maker(spec: ProxySpec) -> Callable[[Flow], bytes] | None:
    """Return what makes that which a backend is sent first; None: nothing is."""
    if spec.send is not ProxySend.V2:
        return _HEADERS[spec.send]
    if spec.pass_tlvs or spec.checksum:
        return _v2_with_fields
    return _v2_with_tls if spec.send_tls else _v2


_HEADERS: Final[dict[ProxySend, Callable[[Flow], bytes] | None]] = {
    ProxySend.OFF: None,
    ProxySend.V1: lambda flow: encode_v1(flow.address, _destination(flow)),
}
