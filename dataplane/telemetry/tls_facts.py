"""What is told of a connection's TLS when it has ended: for the access log and for spans. Only those with TLS come here.

Names and words are a peer's: each is cut at `LONGEST` characters, and escaped by who writes it.
"""

from __future__ import annotations

from json.encoder import encode_basestring_ascii as quote
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from dataplane.net.flow import Flow
    from dataplane.net.leg import Leg
    from dataplane.net.tls import Channel

LONGEST: Final = 255
"""Characters: what SNI and a protocol of ALPN can have (RFC 6066, section 3; RFC 7301, section 3.1)."""


def tls_fields(flow: Flow, server: Leg | None) -> str:
    """Return the fields of an access log's line, in JSON, with what separates them from the ones before; or nothing."""
    channel, hello = flow.client.tls, flow.hello
    told = ""
    if channel is not None:
        sni, cn = _cut(channel.sni), _cut(channel.peer_name or "")
        told = f', "tls": {{{_session(channel)}, "sni": {quote(sni)}, "client_cn": {quote(cn)}}}'
    elif hello is not None:
        told = f', "tls": {{"sni": {quote(_cut(hello.sni))}}}'
    if server is not None and server.tls is not None:
        told += f', "backend_tls": {{{_session(server.tls)}, "sni": {quote(_cut(server.tls.sni))}}}'
    return told


def _session(channel: Channel) -> str:
    return (
        f'"version": {quote(channel.version)}, "cipher": {quote(channel.cipher)}, "alpn": {quote(_cut(channel.alpn))}, '
        f'"resumed": {"true" if channel.resumed else "false"}, "handshake_ms": {channel.handshake_s * 1000:.3f}'
    )


def tls_attributes(flow: Flow, server: Leg | None) -> dict[str, AttributeValue]:
    """Return the attributes of a span: those of the client's leg by OpenTelemetry's names."""
    channel, hello = flow.client.tls, flow.hello
    found: dict[str, AttributeValue] = {}
    if channel is not None:
        found |= {
            "tls.protocol.name": "tls",
            "tls.protocol.version": channel.version.removeprefix("TLSv"),
            "tls.cipher": channel.cipher,
            "tls.established": True,
            "tls.resumed": channel.resumed,
            "lb.tls_handshake_ms": round(channel.handshake_s * 1000, 3),
        }
        if channel.alpn:
            found["tls.next_protocol"] = _cut(channel.alpn)
        if channel.peer_name:
            found["tls.client.subject"] = f"CN={_cut(channel.peer_name)}"
    sni = channel.sni if channel is not None else hello.sni if hello is not None else ""
    if sni:
        found["tls.client.server_name"] = _cut(sni)
    if server is not None and server.tls is not None:
        found |= {
            "lb.backend_tls_version": server.tls.version.removeprefix("TLSv"),
            "lb.backend_tls_cipher": server.tls.cipher,
            "lb.backend_tls_resumed": server.tls.resumed,
            "lb.backend_tls_handshake_ms": round(server.tls.handshake_s * 1000, 3),
        }
    return found


def _cut(text: str) -> str:
    return text[:LONGEST]
