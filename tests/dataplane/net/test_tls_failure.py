"""What a failed handshake is called, and when a certificate ends."""

from __future__ import annotations

import ssl
from datetime import timedelta
from pathlib import Path

from dataplane.net.tls_failure import CLOSED, certificate_times, failure_words
from tests.support.tls import CertificateAuthority
from tests.support.tls_ends import TlsEnd


def shaken(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> TlsEnd:
    """Let two sides talk until neither has anything to say; return the client's."""
    near, far = TlsEnd(client, server_name=name), TlsEnd(server)
    said = near.take(b"")
    while said:
        answer = far.take(said)
        said = near.take(answer) if answer else b""
    return near


def test_the_cause_comes_first_and_openssl_explains_it(tmp_path: Path) -> None:
    """Programs read the word up to the colon, people the rest."""
    authority = CertificateAuthority(tmp_path)
    server = authority.server_context(authority.issue("other.example"))
    error = shaken(authority.client_context(), server, "db.example").failure
    assert error is not None
    assert failure_words(error) == (
        "wrong_name: Hostname mismatch, certificate is not valid for 'db.example'"
    )
    ended = authority.server_context(authority.expired("db.example"))
    error = shaken(authority.client_context(), ended, "db.example").failure
    assert error is not None
    assert failure_words(error) == "expired: certificate has expired"


def test_a_close_in_the_handshake_is_said_so() -> None:
    """OpenSSL's own words for it help nobody."""
    assert failure_words(ssl.SSLEOFError(8, "EOF occurred in violation of protocol")) == CLOSED


def test_the_end_of_a_certificate(tmp_path: Path) -> None:
    """It is that of the certificate that was shown; one that was not verified has none."""
    authority = CertificateAuthority(tmp_path)
    times = [
        certificate_times(
            shaken(
                authority.client_context(),
                authority.server_context(authority.issue("db.example", lasts=timedelta(days=days))),
                "db.example",
            ).tls
        )
        for days in (5, 95)
    ]
    assert round((times[1][0] - times[0][0]) / 86400) == 90
    assert [round((ends - due) / 86400, 2) for ends, due in times] == [2.0, 14.0]  # it began yesterday
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE
    server = authority.server_context(authority.issue("db.example"))
    assert certificate_times(shaken(careless, server, "db.example").tls) == (0.0, 0.0)
