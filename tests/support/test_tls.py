"""The certificates of tests are what their names say: believed, refused, ended, readable by their owner only."""

from __future__ import annotations

import ssl
from datetime import timedelta

import pytest

from tests.support.tls import CertificateAuthority


def _shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str = "db.example.com"):
    """Do a handshake in memory and return both ends.

    Raises:
        ssl.SSLError: One of them refused the other.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
                end.read()  # where a server's refusal of TLS 1.3 arrives
            except ssl.SSLWantReadError:
                continue
    return ends


@pytest.mark.parametrize("algorithm", ["ecdsa", "rsa"])
@pytest.mark.parametrize("name", ["db.example.com", "*.example.com"])
def test_believed(tmp_path, algorithm, name):
    """Who trusts the authority takes its certificates, by name and by wildcard, of both algorithms."""
    authority = CertificateAuthority(tmp_path)
    pair = authority.issue(name, algorithm=algorithm)
    client, _ = _shake_hands(authority.client_context(), authority.server_context(pair))
    assert client.version() == "TLSv1.3"


def test_refused(tmp_path):
    """A certificate of another authority, of another name, or of the past is refused."""
    authority, stranger = CertificateAuthority(tmp_path / "a"), CertificateAuthority(tmp_path / "b")
    for pair, said in (
        (stranger.issue("db.example.com"), "unable to get local issuer certificate|self.signed"),
        (authority.issue("web.example.com"), "Hostname mismatch"),
        (authority.expired("db.example.com"), "certificate has expired"),
        (authority.issue("db.example.com", lasts=-timedelta(seconds=1)), "certificate has expired"),
    ):
        with pytest.raises(ssl.SSLCertVerificationError, match=said):
            _shake_hands(authority.client_context(), authority.server_context(pair))


def test_client(tmp_path):
    """A server that wants a client's certificate takes one of its authority, with its common name, and no stranger's."""
    authority, stranger = CertificateAuthority(tmp_path / "a"), CertificateAuthority(tmp_path / "b")
    server = authority.server_context(authority.issue("db.example.com"), client_ca=authority.ca)
    own = authority.issue("app.example.com", common_name="app")
    _, end = _shake_hands(authority.client_context(own), server)
    assert (("commonName", "app"),) in end.getpeercert()["subject"]
    with pytest.raises(ssl.SSLError):
        _shake_hands(authority.client_context(stranger.issue("app.example.com")), server)


def test_files(tmp_path):
    """Keys are their owner's only, a renewal replaces both files, and one file has both for who wants that."""
    authority = CertificateAuthority(tmp_path)
    pair = authority.issue("db.example.com")
    assert [path.stat().st_mode & 0o777 for path in (pair.cert, pair.key, pair.single)] == [
        0o644,
        0o600,
        0o600,
    ]
    before = pair.cert.stat().st_ino
    authority.issue("db.example.com", file="renewed").put(pair.cert, pair.key)
    assert pair.cert.stat().st_ino != before
    authority.server_context(pair)  # they still belong together
    assert pair.single.read_bytes() == pair.cert.read_bytes() + pair.key.read_bytes()
