"""What a handshake finds: the certificate by name and by kind of key, versions, ciphers, authorities, protocols."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from dataplane.core.spec import BackendTlsSpec, CertificateSpec, TlsSpec
from dataplane.tls.contexts import backend_context, grouped, server_context
from dataplane.tls.files import Pair, read_pair
from tests.support import tls
from tests.support.tls import CertificateAuthority
from tests.support.tls_ends import TlsEnd


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    """Return whom clients trust."""
    return CertificateAuthority(tmp_path / "ca")


def read(*pairs: tls.Pair) -> list[Pair]:
    """Return pairs as a service has them."""
    return [read_pair(CertificateSpec(str(one.cert), str(one.key))) for one in pairs]


def spec(**said) -> TlsSpec:
    """Return settings; the files are read already."""
    return TlsSpec((CertificateSpec("", ""),), **said)


def shake(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None) -> tuple[TlsEnd, TlsEnd]:
    """Have two ends do a handshake; return server and client, which say if it failed."""
    ends = TlsEnd(server), TlsEnd(client, server_name=name)
    sent, at = b"", 1
    for _ in range(20):
        if ends[at].failure is None:
            sent = ends[at].take(sent)
        at = 1 - at
    return ends


def names_of(end: TlsEnd) -> set[str]:
    """Return the names in the certificate that a client was shown."""
    assert end.failure is None
    certificate = end.tls.getpeercert()
    assert certificate is not None
    return {value for _, value in certificate["subjectAltName"]}


def trusting(authority: CertificateAuthority) -> ssl.SSLContext:
    """Return a client that takes every name, to see which it is shown."""
    context = authority.client_context()
    context.check_hostname = False
    return context


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("a.example", "a.example"),
        ("A.Example", "a.example"),
        ("c.b.example", "c.b.example"),
        ("x.b.example", "*.b.example"),
        ("x.y.b.example", "first.example"),
        ("b.example", "first.example"),
        ("other", "first.example"),
        (None, "first.example"),
    ],
)
def test_the_name_chooses(authority, asked, shown):
    """A whole name, then one with `*.` for one label, else the first."""
    pairs = [authority.issue(name) for name in ("first.example", "a.example", "*.b.example", "c.b.example")]
    context = server_context(spec(), read(*pairs), "")
    server, client = shake(context, trusting(authority), asked)
    assert names_of(client) == {shown}
    assert getattr(server.tls, "sni", None) == asked


def test_with_one_certificate_the_name_is_noted(authority):
    """Logs and backends want it, though there is nothing to choose."""
    context = server_context(spec(), read(authority.issue("a.example")), "")
    server, _ = shake(context, trusting(authority), "b.example")
    assert server.tls.sni == "b.example"


def test_the_first_of_two_for_one_name_counts(authority):
    """Where both have a key of one kind, and other names beside it."""
    pairs = authority.issue("a.example", "b.example"), authority.issue("a.example", "c.example", file="c")
    context = server_context(spec(), read(*pairs), "")
    assert names_of(shake(context, trusting(authority), "a.example")[1]) == {"a.example", "b.example"}
    assert names_of(shake(context, trusting(authority), "c.example")[1]) == {"a.example", "c.example"}


@pytest.mark.parametrize("kind", ["ECDSA", "RSA"])
def test_kinds_of_keys_stand_side_by_side(authority, kind):
    """A client that knows only one of them finds it."""
    pairs = read(authority.issue("a.example", algorithm="rsa"), authority.issue("a.example"))
    assert [len(group) for group in grouped(pairs)] == [2]
    client = trusting(authority)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(f"ECDHE-{kind}-AES128-GCM-SHA256")
    _, end = shake(server_context(spec(), pairs, ""), client, "a.example")
    assert end.failure is None
    assert kind in end.tls.cipher()[0]


def test_two_with_the_same_names_and_kind_are_no_group(authority):
    """The second would take the first one's place."""
    one, other = authority.issue("a.example", file="1"), authority.issue("a.example", file="2")
    assert [len(group) for group in grouped(read(one, other))] == [1, 1]


def test_versions(authority):
    """From 1.2 on, or from 1.3; nothing older whatever clients want."""
    pairs = read(authority.issue("a.example"))
    client = authority.client_context()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert shake(server_context(spec(), pairs, ""), client, "a.example")[1].tls.version() == "TLSv1.2"
    server, _ = shake(server_context(spec(min_version="1.3"), pairs, ""), client, "a.example")
    assert server.failure is not None
    assert server.failure.reason == "UNSUPPORTED_PROTOCOL"
    assert server_context(spec(), pairs, "").minimum_version is ssl.TLSVersion.TLSv1_2


def test_ciphers_at_their_default(authority):
    """Of TLS 1.2 only those with forward secrecy and authenticated encryption; or those that are named."""
    pairs = read(authority.issue("a.example"))
    usual = [one["name"] for one in server_context(spec(), pairs, "").get_ciphers()]
    assert usual
    assert all(
        name.startswith(("TLS_", "ECDHE-")) and ("GCM" in name or "POLY1305" in name) for name in usual
    )
    named = server_context(spec(ciphers="ECDHE-RSA-AES256-GCM-SHA384"), pairs, "").get_ciphers()
    assert [one["name"] for one in named if not one["name"].startswith("TLS_")] == [
        "ECDHE-RSA-AES256-GCM-SHA384"
    ]


def test_no_renegotiation_no_compression(authority):
    """Neither is of use, and both were of use to attackers."""
    for context in (
        server_context(spec(), read(authority.issue("a.example")), ""),
        backend_context(BackendTlsSpec(), None, ""),
    ):
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.options & ssl.OP_NO_COMPRESSION


def test_protocols_in_our_order(authority):
    """The preferred of those that the client offers; with none in common there is none."""
    context = server_context(spec(alpn=("h2", "http/1.1")), read(authority.issue("a.example")), "")
    for offered, agreed in ((["http/1.1", "h2"], "h2"), (["http/1.1"], "http/1.1"), (["x"], None)):
        client = authority.client_context()
        client.set_alpn_protocols(offered)
        assert shake(context, client, "a.example")[1].tls.selected_alpn_protocol() == agreed


def test_every_context_of_a_service_asks_for_certificates(authority):
    """Which name a client asks for is no way around it."""
    pairs = read(authority.issue("a.example"), authority.issue("b.example"))
    context = server_context(spec(client_ca="x"), pairs, authority.ca.read_text())
    own = authority.issue("client.example")
    for name in ("a.example", "b.example"):
        server, _ = shake(context, authority.client_context(), name)
        assert server.failure is not None
        assert server.failure.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
        server, _ = shake(context, authority.client_context(own), name)
        assert server.failure is None


def test_backends_are_verified(authority, tmp_path):
    """By name and authority, our own file or the system's; without `verify` by neither."""
    server = server_context(spec(), read(authority.issue("a.example")), "")
    own = backend_context(BackendTlsSpec(ca="x"), None, authority.ca.read_text())
    assert shake(server, own, "a.example")[1].failure is None
    for context, name in ((own, "b.example"), (backend_context(BackendTlsSpec(), None, ""), "a.example")):
        assert isinstance(shake(server, context, name)[1].failure, ssl.SSLCertVerificationError)
    anybody = backend_context(BackendTlsSpec(verify=False), None, "")
    assert shake(server, anybody, "b.example")[1].failure is None


def test_backends_see_our_certificate_and_protocols(authority):
    """Where they ask for one."""
    (ours,) = read(authority.issue("us.example", common_name="us"))
    server = authority.server_context(authority.issue("a.example"), client_ca=authority.ca)
    server.set_alpn_protocols(["x", "postgresql"])
    context = backend_context(BackendTlsSpec(alpn=("postgresql",)), ours, authority.ca.read_text())
    end, client = shake(server, context, "a.example")
    assert end.failure is None
    assert names_of(end) == {"us.example"}
    assert client.tls.selected_alpn_protocol() == "postgresql"
