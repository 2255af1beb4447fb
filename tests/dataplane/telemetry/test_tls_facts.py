"""What logs and spans tell of TLS, of real sessions."""

from __future__ import annotations

import json
import ssl
from types import SimpleNamespace
from typing import Any

import pytest

from dataplane.core.client_hello import ClientHello
from dataplane.net.tls import Channel, note_sni
from dataplane.telemetry.tls_facts import LONGEST, tls_attributes, tls_fields
from tests.dataplane.net.test_tls import shake_hands
from tests.dataplane.telemetry.ended import ended
from tests.support.tls import CertificateAuthority


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> CertificateAuthority:
    """Whom all here trust."""
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(authority) -> ssl.SSLContext:
    """A context that wants a certificate of clients, and speaks h2."""
    context: ssl.SSLContext = authority.server_context(authority.issue("server.test"), client_ca=authority.ca)
    context.set_alpn_protocols(["h2"])
    context.sni_callback = lambda connection, name, _: note_sni(connection, name)
    return context


def session(authority, server, *, name: str = "alice", tls: str = "TLSv1_3") -> tuple[Channel, Channel]:
    """Return the two ends of one: the client's, whose certificate has this name, and ours."""
    context = authority.client_context(authority.issue("client.test", common_name=name, file="client"))
    context.set_alpn_protocols(["h2"])
    context.minimum_version = context.maximum_version = ssl.TLSVersion[tls]
    far, near = Channel(context, False, "server.test"), Channel(server, True)
    shake_hands(far, near)
    near.handshake_s, far.handshake_s = 0.0125, 0.5
    return far, near


def flow(channel: Channel | None = None, hello: ClientHello | None = None) -> Any:
    """Return one that has ended."""
    one = ended()
    one.client.tls, one.hello = channel, hello
    return one


def leg(channel: Channel | None) -> Any:
    """Return a backend's leg."""
    return SimpleNamespace(tls=channel, received=0)


def test_without_tls_nothing_is_told() -> None:
    """No field, and no attribute."""
    for server in (None, leg(None)):
        assert tls_fields(flow(), server) == ""
        assert tls_attributes(flow(), server) == {}


@pytest.mark.parametrize("tls", ["TLSv1_2", "TLSv1_3"])
def test_both_legs(authority, server, tls) -> None:
    """Each has its session; the client's has who the client is as well."""
    far, near = session(authority, server, tls=tls)
    told = json.loads("{" + tls_fields(flow(near), leg(far))[2:] + "}")
    both = {
        "version": tls.replace("_", "."),
        "cipher": near.cipher,
        "alpn": "h2",
        "resumed": False,
        "sni": "server.test",
    }
    assert told == {
        "tls": {**both, "handshake_ms": 12.5, "client_cn": "alice"},
        "backend_tls": {**both, "handshake_ms": 500.0},
    }
    version = tls.removeprefix("TLSv").replace("_", ".")
    assert tls_attributes(flow(near), leg(far)) == {
        "tls.protocol.name": "tls",
        "tls.protocol.version": version,
        "tls.cipher": near.cipher,
        "tls.established": True,
        "tls.resumed": False,
        "tls.next_protocol": "h2",
        "tls.client.server_name": "server.test",
        "tls.client.subject": "CN=alice",
        "lb.tls_handshake_ms": 12.5,
        "lb.backend_tls_version": version,
        "lb.backend_tls_cipher": near.cipher,
        "lb.backend_tls_resumed": False,
        "lb.backend_tls_handshake_ms": 500.0,
    }


def test_what_was_passed_on_has_its_name() -> None:
    """Of TLS that does not end here nothing else is known."""
    routed = flow(hello=ClientHello(sni="a.example", alpn=("h2",)))
    assert tls_fields(routed, leg(None)) == ', "tls": {"sni": "a.example"}'
    assert tls_attributes(routed, leg(None)) == {"tls.client.server_name": "a.example"}


def test_names_are_cut_and_escaped(authority, server) -> None:
    """A certificate says what it likes."""
    _, near = session(authority, server, name='al"ice\n\x1b[2J' + "é" * 25)
    text = tls_fields(flow(near), None)
    assert text.isascii()
    assert text.isprintable()
    assert json.loads("{" + text[2:] + "}")["tls"]["client_cn"] == 'al"ice\n\x1b[2J' + "é" * 25
    routed = flow(hello=ClientHello(sni="x" * 1000))
    assert json.loads("{" + tls_fields(routed, None)[2:] + "}") == {"tls": {"sni": "x" * LONGEST}}
