"""TLS of a service over renewals: what new handshakes get, and what is told."""

from __future__ import annotations

import ssl
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from dataplane.core.spec import BackendTlsSpec, CertificateSpec, TlsSpec
from dataplane.tls import service as services
from dataplane.tls.files import TlsFileError
from dataplane.tls.renewal import SETTLE_S
from dataplane.tls.service import ClientTls, ServerTls
from tests.support.tls import CertificateAuthority, Pair
from tests.support.tls_ends import TlsEnd


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    """Return who signs."""
    return CertificateAuthority(tmp_path / "ca")


def now_of(pair: Pair) -> float:
    """Return a time at which a certificate holds."""
    return pair.cert.stat().st_mtime


def spec_of(*pairs: Pair, client_ca: str = "") -> TlsSpec:
    """Return settings with these pairs."""
    return TlsSpec(tuple(CertificateSpec(str(one.cert), str(one.key)) for one in pairs), client_ca)


def shown(context: ssl.SSLContext, authority: CertificateAuthority, name: str) -> str:
    """Return the number of the certificate that a new client is shown."""
    client = authority.client_context()
    client.check_hostname = False
    ends, sent, at = (TlsEnd(context), TlsEnd(client, server_name=name)), b"", 1
    for _ in range(10):
        sent = ends[at].take(sent)
        at = 1 - at
    certificate = ends[1].tls.getpeercert()
    assert certificate
    return str(certificate["serialNumber"]).lower().lstrip("0")


def serials(tls: ServerTls | ClientTls) -> list[str]:
    """Return the numbers of the certificates in use."""
    return [one.serial.lstrip("0") for one in tls.files.views()]


def test_a_renewed_pair_is_what_new_clients_are_shown(authority):
    """Only what was renewed is other; connections in place have the context that they began with."""
    first, second = authority.issue("a.example"), authority.issue("b.example")
    now = now_of(first)
    tls = ServerTls(spec_of(first, second), now)
    before, old = tls.context, serials(tls)
    authority.issue("b.example", file="new").put(second.cert, second.key)
    (news,) = tls.renew(1.0, now)
    assert (news.kind, news.place, news.path, news.cause) == (
        "certificate_renewed",
        "tls.certificates[1]",
        str(second.cert),
        "",
    )
    assert news.ends is not None
    assert tls.context is not before
    assert serials(tls)[0] == old[0]
    assert serials(tls)[1] != old[1]
    assert shown(tls.context, authority, "a.example") == old[0]
    assert shown(tls.context, authority, "b.example") == serials(tls)[1]
    assert shown(before, authority, "b.example") == old[1]
    assert tls.renew(2.0, now) == []


def test_one_bad_pair_keeps_no_other_from_being_renewed(authority):
    """Each of a group as well, whose other files are no more what is in use."""
    rsa, ecdsa = authority.issue("a.example", algorithm="rsa"), authority.issue("a.example")
    now = now_of(rsa)
    tls = ServerTls(spec_of(rsa, ecdsa), now)
    old = serials(tls)
    rsa.key.write_text("nothing")
    authority.issue("a.example", file="new").put(ecdsa.cert, ecdsa.key)
    assert [one.kind for one in tls.renew(1.0, now)] == ["certificate_renewed"]
    (news,) = tls.renew(1.0 + SETTLE_S, now)
    assert (news.kind, news.place) == ("certificate_not_renewed", "tls.certificates[0]")
    assert "no private key in PEM" in news.cause
    bad, good = tls.files.views()
    assert (bad.serial.lstrip("0"), bad.trouble, bad.since) == (old[0], news.cause, 1.0)
    assert (good.trouble, good.since) == ("", None)
    client = authority.client_context()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    server, end, sent = TlsEnd(tls.context), TlsEnd(client, server_name="a.example"), b""
    for _ in range(5):
        sent = server.take(end.take(sent))
    assert end.established


def test_what_has_ended_or_begins_later_replaces_nothing(authority):
    """The old one is as good, or better; it is taken when its time comes."""
    pair = authority.issue("a.example")
    now = now_of(pair)
    tls = ServerTls(spec_of(pair), now)
    old = serials(tls)
    authority.expired("a.example").put(pair.cert, pair.key)
    tls.renew(1.0, now)
    (news,) = tls.renew(1.0 + SETTLE_S, now)
    assert "ended at" in news.cause
    later = authority.issue("a.example", file="later")
    later.put(pair.cert, pair.key)
    (news,) = tls.renew(10.0, now - 3 * 86400)
    assert "holds only from" in news.cause
    assert serials(tls) == old
    assert any(one.kind == "certificate_renewed" for at in range(11, 80) for one in tls.renew(float(at), now))
    assert serials(tls) != old


def test_one_can_begin_with_what_has_ended(authority):
    """It is all there is, and the other services start, too; the view says when it ended."""
    pair = authority.expired("a.example")
    tls = ServerTls(spec_of(pair), now_of(pair))
    (view,) = tls.files.views()
    assert view.not_after < now_of(pair)
    assert (view.names, view.key, view.trouble) == (("a.example",), "ecdsa", "")


def test_one_cannot_begin_with_what_cannot_be_used(authority):
    """The place is that of the file."""
    pair = authority.issue("a.example")
    other = authority.issue("b.example")
    spec = TlsSpec((*spec_of(other).certificates, CertificateSpec(str(pair.cert), "/nowhere")))
    with pytest.raises(TlsFileError) as caught:
        ServerTls(spec, now_of(pair))
    assert caught.value.place == "certificates[1].key"


def test_authorities_are_renewed(authority, tmp_path):
    """Of clients; what is none keeps those before."""
    pair = authority.issue("a.example")
    file, now = tmp_path / "clients.pem", now_of(pair)
    file.write_bytes(authority.ca.read_bytes())
    tls = ServerTls(spec_of(pair, client_ca=str(file)), now)
    before = tls.context
    file.write_text("nothing")
    tls.renew(1.0, now)
    (news,) = tls.renew(1.0 + SETTLE_S, now)
    assert (news.kind, news.place, news.ends) == ("authorities_not_renewed", "tls.client_ca", None)
    assert tls.context is before
    other = CertificateAuthority(tmp_path / "other")
    file.write_bytes(authority.ca.read_bytes() + other.ca.read_bytes())
    assert [one.kind for one in tls.renew(10.0, now)] == ["authorities_renewed"]
    assert tls.context.cert_store_stats()["x509_ca"] == 2


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("db.example:5432", "db.example"),
        ("db.example.:5432", "db.example"),
        ("10.0.0.1:5432", "10.0.0.1"),
        ("[2001:db8::1]:5432", "2001:db8::1"),
        ("[fe80::1%eth0]:5432", "fe80::1"),
        ("unix:/run/db.sock", None),
    ],
)
def test_a_backend_is_verified_by_the_host_of_its_address(address, name):
    """Unless a name is said."""
    backend = SimpleNamespace(id="x", spec=SimpleNamespace(address=address))
    assert ClientTls(BackendTlsSpec(), 0.0).server_name_of(backend) == name
    assert ClientTls(BackendTlsSpec(server_name="said"), 0.0).server_name_of(backend) == "said"


def test_our_own_certificate_is_renewed(authority):
    """Sessions belong to the contexts before, and are forgotten."""
    pair = authority.issue("us.example")
    now = now_of(pair)
    tls = ClientTls(BackendTlsSpec(ca=str(authority.ca), cert=str(pair.cert), key=str(pair.key)), now)
    backend = SimpleNamespace(id="x", spec=SimpleNamespace(address="h:1"))
    tls.remember(backend, SimpleNamespace(session="session"))
    assert tls.session(backend) == "session"
    before = tls.context
    authority.issue("us.example", file="new", lasts=timedelta(days=60)).put(pair.cert, pair.key)
    assert [(one.kind, one.place) for one in tls.renew(1.0, now)] == [("certificate_renewed", "backend_tls")]
    assert tls.context is not before
    assert tls.session(backend) is None


def test_sessions_are_bounded(monkeypatch):
    """The oldest go; of a backend there is one, and none where there is nothing to resume."""
    monkeypatch.setattr(services, "MOST_SESSIONS", 2)
    tls = ClientTls(BackendTlsSpec(), 0.0)
    backends = [SimpleNamespace(id=str(n), spec=SimpleNamespace(address="h:1")) for n in range(3)]
    for round_ in (1, 2):
        for backend in backends:
            tls.remember(backend, SimpleNamespace(session=(backend.id, round_)))
    tls.remember(backends[2], SimpleNamespace(session=None))
    assert [tls.session(one) for one in backends] == [None, ("1", 2), ("2", 2)]
    moved = SimpleNamespace(id="2", spec=SimpleNamespace(address="other:1"))
    assert tls.session(moved) is None
