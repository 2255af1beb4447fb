"""The words for why TLS with a peer failed: one for each, the same in logs, metrics, API and documents."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class TlsCause(StrEnum):
    """Why a handshake, or a session after it, failed; the words with `alert_` are what the peer says of us."""

    NO_HELLO = "no_hello"
    """The peer left without a word: as a rule a check of somebody's that only connects."""
    TRUNCATED = "truncated"
    """The peer left in the middle: before the handshake was over, or later without a close_notify."""
    TIMEOUT = "timeout"
    """The handshake was not over in time: `timeouts.tls_handshake` for clients, the rest of `timeouts.connect` for backends."""
    NOT_TLS = "not_tls"
    """The peer speaks something else."""
    HTTP_REQUEST = "http_request"
    """The peer speaks HTTP where TLS is expected."""
    UNSUPPORTED_VERSION = "unsupported_version"
    """Peer and `tls.min_version` have no version of TLS in common."""
    NO_SHARED_CIPHER = "no_shared_cipher"
    """There is no cipher, group or signature algorithm that both sides take (or none that fits our certificate)."""
    NO_CERTIFICATE = "no_certificate"
    """The peer has shown no certificate, and has to."""
    UNKNOWN_CA = "unknown_ca"
    """Nobody whom we trust has signed the peer's certificate."""
    EXPIRED = "expired"
    """The peer's certificate has ended."""
    NOT_YET_VALID = "not_yet_valid"
    """The peer's certificate begins later: a clock may be wrong."""
    WRONG_NAME = "wrong_name"
    """The peer's certificate is for another name."""
    BAD_CERTIFICATE = "bad_certificate"
    """The peer's certificate is not accepted for another reason: its purpose, its signature, its strength."""
    BAD_RECORD = "bad_record"
    """What came was changed on its way, or is garbage."""
    PROTOCOL_ERROR = "protocol_error"
    """The peer breaks the rules of TLS."""
    ALERT_UNKNOWN_CA = "alert_unknown_ca"
    """The peer does not trust who has signed our certificate."""
    ALERT_BAD_CERTIFICATE = "alert_bad_certificate"
    """The peer does not accept our certificate: for another name, for instance."""
    ALERT_EXPIRED = "alert_expired"
    """The peer says that our certificate has ended."""
    ALERT_NO_CERTIFICATE = "alert_no_certificate"
    """The peer wants a certificate of us."""
    ALERT_UNSUPPORTED_VERSION = "alert_unsupported_version"
    """The peer does not take our versions of TLS."""
    ALERT_HANDSHAKE_FAILURE = "alert_handshake_failure"
    """The peer takes nothing of what we offer: a cipher, as a rule."""
    ALERT_ACCESS_DENIED = "alert_access_denied"
    """The peer accepts our certificate, and does not let us in."""
    ALERT_OTHER = "alert_other"
    """The peer says something else: that it has changed its mind, or that we break the rules."""


_REASONS: Final = {
    "HTTP_REQUEST": TlsCause.HTTP_REQUEST,
    "HTTPS_PROXY_REQUEST": TlsCause.HTTP_REQUEST,
    "WRONG_VERSION_NUMBER": TlsCause.NOT_TLS,
    "UNKNOWN_PROTOCOL": TlsCause.NOT_TLS,
    "UNSUPPORTED_PROTOCOL": TlsCause.UNSUPPORTED_VERSION,
    "UNSUPPORTED_VERSION": TlsCause.UNSUPPORTED_VERSION,
    "UNSUPPORTED_SSL_VERSION": TlsCause.UNSUPPORTED_VERSION,
    "VERSION_TOO_LOW": TlsCause.UNSUPPORTED_VERSION,
    "VERSION_TOO_HIGH": TlsCause.UNSUPPORTED_VERSION,
    "WRONG_SSL_VERSION": TlsCause.UNSUPPORTED_VERSION,
    "NO_PROTOCOLS_AVAILABLE": TlsCause.UNSUPPORTED_VERSION,
    "INAPPROPRIATE_FALLBACK": TlsCause.UNSUPPORTED_VERSION,
    "NO_SHARED_CIPHER": TlsCause.NO_SHARED_CIPHER,
    "NO_CIPHERS_AVAILABLE": TlsCause.NO_SHARED_CIPHER,
    "NO_SHARED_GROUPS": TlsCause.NO_SHARED_CIPHER,
    "NO_SUITABLE_GROUPS": TlsCause.NO_SHARED_CIPHER,
    "NO_SUITABLE_KEY_SHARE": TlsCause.NO_SHARED_CIPHER,
    "NO_SHARED_SIGNATURE_ALGORITHMS": TlsCause.NO_SHARED_CIPHER,
    "NO_SUITABLE_SIGNATURE_ALGORITHM": TlsCause.NO_SHARED_CIPHER,
    "WRONG_SIGNATURE_TYPE": TlsCause.NO_SHARED_CIPHER,
    "DH_KEY_TOO_SMALL": TlsCause.NO_SHARED_CIPHER,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": TlsCause.NO_CERTIFICATE,
    "NO_CERTIFICATES_RETURNED": TlsCause.NO_CERTIFICATE,
    "CERTIFICATE_VERIFY_FAILED": TlsCause.BAD_CERTIFICATE,
    "EE_KEY_TOO_SMALL": TlsCause.BAD_CERTIFICATE,
    "CA_KEY_TOO_SMALL": TlsCause.BAD_CERTIFICATE,
    "CA_MD_TOO_WEAK": TlsCause.BAD_CERTIFICATE,
    "DECRYPTION_FAILED_OR_BAD_RECORD_MAC": TlsCause.BAD_RECORD,
    "BAD_RECORD_TYPE": TlsCause.BAD_RECORD,
    "ENCRYPTED_LENGTH_TOO_LONG": TlsCause.BAD_RECORD,
    "PACKET_LENGTH_TOO_LONG": TlsCause.BAD_RECORD,
    "UNEXPECTED_EOF_WHILE_READING": TlsCause.TRUNCATED,
}
"""By OpenSSL's name of the error (openssl/sslerr.h)."""

_ALERTS: Final = {
    "UNKNOWN_CA": TlsCause.ALERT_UNKNOWN_CA,
    "BAD_CERTIFICATE": TlsCause.ALERT_BAD_CERTIFICATE,
    "CERTIFICATE_UNKNOWN": TlsCause.ALERT_BAD_CERTIFICATE,
    "UNSUPPORTED_CERTIFICATE": TlsCause.ALERT_BAD_CERTIFICATE,
    "CERTIFICATE_REVOKED": TlsCause.ALERT_BAD_CERTIFICATE,
    "CERTIFICATE_EXPIRED": TlsCause.ALERT_EXPIRED,
    "CERTIFICATE_REQUIRED": TlsCause.ALERT_NO_CERTIFICATE,
    "NO_CERTIFICATE": TlsCause.ALERT_NO_CERTIFICATE,
    "PROTOCOL_VERSION": TlsCause.ALERT_UNSUPPORTED_VERSION,
    "HANDSHAKE_FAILURE": TlsCause.ALERT_HANDSHAKE_FAILURE,
    "INSUFFICIENT_SECURITY": TlsCause.ALERT_HANDSHAKE_FAILURE,
    "ACCESS_DENIED": TlsCause.ALERT_ACCESS_DENIED,
}
"""By what follows `_ALERT_` in OpenSSL's name of an alert that has come."""

_VERIFICATION: Final = {
    2: TlsCause.UNKNOWN_CA,
    18: TlsCause.UNKNOWN_CA,
    19: TlsCause.UNKNOWN_CA,
    20: TlsCause.UNKNOWN_CA,
    21: TlsCause.UNKNOWN_CA,
    9: TlsCause.NOT_YET_VALID,
    10: TlsCause.EXPIRED,
    62: TlsCause.WRONG_NAME,
    64: TlsCause.WRONG_NAME,
}
"""By OpenSSL's number of what it has against a certificate (X509_V_ERR_ in openssl/x509_vfy.h)."""


def cause_of(reason: str, verification: int = 0) -> TlsCause:
    """Return the word for a failure.

    Args:
        reason: OpenSSL's name of the error, as `ssl.SSLError.reason` has it; empty if it has none.
        verification: What is wrong with the peer's certificate, as `ssl.SSLCertVerificationError.verify_code`; 0 for nothing.
    """
    if verification:
        return _VERIFICATION.get(verification, TlsCause.BAD_CERTIFICATE)
    _, is_alert, alert = reason.partition("_ALERT_")
    if is_alert:
        return _ALERTS.get(alert, TlsCause.ALERT_OTHER)
    if reason.startswith(
        "TLSV1_"
    ):  # alerts of later documents, whose names have no word in them that says so
        return TlsCause.ALERT_OTHER
    return _REASONS.get(reason, TlsCause.PROTOCOL_ERROR)
