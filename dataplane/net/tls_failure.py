"""What a TLS handshake that we have begun tells people: why it failed, and how long the peer's certificate holds."""

from __future__ import annotations

import ssl
from typing import Final

from dataplane.core.tls_cause import TlsCause, cause_of

SOON_S: Final = 14 * 86400.0
CLOSED = f"{TlsCause.TRUNCATED}: the connection was closed in the handshake"
NAMELESS = f"{TlsCause.WRONG_NAME}: no name to verify; give backend_tls a server_name"
"""Without a name OpenSSL would take a certificate for anybody (of `wrap_bio`; sockets of `ssl` refuse it)."""


def failure_words(error: ssl.SSLError) -> str:
    """Say why a handshake with a backend failed: the cause's word, and where that helps OpenSSL's own words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{cause_of('', error.verify_code)}: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):  # older Pythons say the second
        return CLOSED
    cause, said = cause_of(error.reason or ""), (error.reason or str(error)).lower().replace("_", " ")
    return cause if cause.replace("_", " ") == said else f"{cause}: {said}"


def certificate_times(tls: ssl.SSLObject) -> tuple[float, float]:
    """Return when the peer's certificate is valid no more, and from when on it is worth a word (Unix seconds).

    That is in the last third of its time, and for those that hold for long in the last 14 days. Both are 0 if it was not
    verified, for then nobody has read it.
    """
    certificate = tls.getpeercert() or {}
    begins, ends = certificate.get("notBefore"), certificate.get("notAfter")
    if not isinstance(begins, str) or not isinstance(ends, str):
        return 0.0, 0.0
    first, last = ssl.cert_time_to_seconds(begins), ssl.cert_time_to_seconds(ends)
    return float(last), last - min(SOON_S, (last - first) / 3)
