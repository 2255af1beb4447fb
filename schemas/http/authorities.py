"""TLS contexts that judge other people's certificates alike on every Python."""

from __future__ import annotations

import ssl
from pathlib import Path


def trusting(purpose: ssl.Purpose, authorities: Path | None) -> ssl.SSLContext:
    """Make a context that trusts these authorities, or the system's.

    OSError: the file cannot be read, or holds no certificate.

    Python 3.13 made two changes to its default. It is strict about the form of certificates (RFC 5280), and so refuses
    a private authority without a key-usage extension, which is what `openssl req -x509` makes: an upgrade of the
    system would shut operators out. No other program of this kind asks for it, and whoever names an authority here
    trusts it as it is. And it takes what is named for the end of a chain, an intermediate authority as well; that
    holds on every Python here.
    """
    context = ssl.create_default_context(purpose, cafile=authorities)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
