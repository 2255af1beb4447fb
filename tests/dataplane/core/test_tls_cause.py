"""Why TLS failed: OpenSSL's many names, and our few words."""

from __future__ import annotations

import pytest

from dataplane.core import tls_cause
from dataplane.core.tls_cause import TlsCause, cause_of


@pytest.mark.parametrize(
    ("reason", "verification", "word"),
    [
        ("NO_SHARED_CIPHER", 0, "no_shared_cipher"),
        ("HTTP_REQUEST", 0, "http_request"),
        ("WRONG_VERSION_NUMBER", 0, "not_tls"),
        ("UNSUPPORTED_PROTOCOL", 0, "unsupported_version"),
        ("PEER_DID_NOT_RETURN_A_CERTIFICATE", 0, "no_certificate"),
        ("CERTIFICATE_VERIFY_FAILED", 20, "unknown_ca"),
        ("CERTIFICATE_VERIFY_FAILED", 10, "expired"),
        ("CERTIFICATE_VERIFY_FAILED", 62, "wrong_name"),
        ("CERTIFICATE_VERIFY_FAILED", 26, "bad_certificate"),
        ("TLSV1_ALERT_UNKNOWN_CA", 0, "alert_unknown_ca"),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", 0, "alert_expired"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", 0, "alert_no_certificate"),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", 0, "alert_handshake_failure"),
        ("TLSV1_ALERT_USER_CANCELLED", 0, "alert_other"),
        ("TLSV1_UNRECOGNIZED_NAME", 0, "alert_other"),
        ("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", 0, "bad_record"),
        ("SOMETHING_THAT_NOBODY_KNOWS", 0, "protocol_error"),
        ("", 0, "protocol_error"),
    ],
)
def test_one_word_each(reason: str, verification: int, word: str) -> None:
    """Whose fault it is can be told from the word: `alert_` is what the peer says of us."""
    assert cause_of(reason, verification) == word


def test_no_word_is_left_over() -> None:
    """Each can be met: what OpenSSL says leads to it, or the owner of the socket finds it out."""
    tables = (tls_cause._REASONS, tls_cause._ALERTS, tls_cause._VERIFICATION)
    met = {word for table in tables for word in table.values()}
    assert set(TlsCause) - met == {
        TlsCause.NO_HELLO,
        TlsCause.TIMEOUT,
        TlsCause.PROTOCOL_ERROR,
        TlsCause.ALERT_OTHER,
    }
