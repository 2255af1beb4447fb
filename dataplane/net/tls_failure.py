"""What a TLS handshake that we have begun tells people: why it failed, and how long the peer's certificate holds."""

from __future__ import annotations

import ssl

from dataplane.core.tls_cause import TlsCause, cause_of

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


def certificate_ends(tls: ssl.SSLObject) -> float:
    """Return when the peer's certificate is valid no more (Unix seconds); 0: it was not verified, so nobody has read it."""
    certificate = tls.getpeercert()
    ends = certificate.get("notAfter") if certificate else None
    return float(ssl.cert_time_to_seconds(ends)) if isinstance(ends, str) else 0.0
