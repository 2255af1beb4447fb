"""Until when a certificate holds: the one field of X.509 (RFC 5280, 4.1) that the ssl module does not tell of our own."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["not_after"]

_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"
_VERSION: Final = 0xA0
_FORMATS: Final = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}
"""Of UTCTime and GeneralizedTime."""
_LONG: Final = 0x80


def not_after(pem: str) -> float:
    """Return when the first certificate of a PEM file expires, in Unix seconds.

    Raises:
        ValueError: There is none.
    """
    start, end = pem.index(_BEGIN), pem.index(_END) + len(_END)
    der = ssl.PEM_cert_to_DER_cert(pem[start:end])
    try:
        ((_, certificate),) = _elements(der)
        (_, signed), *_ = _elements(certificate)
        fields = [content for tag, content in _elements(signed) if tag != _VERSION]
        _serial, _algorithm, _issuer, validity, *_ = fields
        _, (tag, text) = _elements(validity)
        return datetime.strptime(text.decode("ascii"), _FORMATS[tag]).replace(tzinfo=UTC).timestamp()
    except (IndexError, KeyError) as error:
        raise ValueError("is no certificate") from error


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each element."""
    at = 0
    while at < len(der):
        tag, size = der[at], der[at + 1]
        at += 2
        if size & _LONG:  # it is the number of bytes that say the size
            count = size & ~_LONG
            size = int.from_bytes(der[at : at + count], "big")
            at += count
        yield tag, der[at : at + size]
        at += size
