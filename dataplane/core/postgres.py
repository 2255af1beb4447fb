"""What PostgreSQL clients send before TLS, in their own protocol: a request that is answered with one byte.

Theory of operation (PostgreSQL's documentation, "Message Flow", sections "SSL Session Encryption" and "GSSAPI Session
Encryption"):

1. A client that wants encryption sends SSLRequest, and waits for one byte: `S`, upon which its ClientHello follows, or `N`.
   One that would rather have GSSAPI's sends GSSENCRequest first; upon `N` it goes on with SSLRequest, or without encryption.
2. So the name that a client wants is known only after somebody has answered: that is us, with `N` and with `S`.
3. The chosen backend has been asked nothing yet. If TLS passes through to it, we ask it what we have answered already, and
   its `S` goes no further. If it answers anything else, the client cannot be told any more.
4. If TLS of the client ends here and another begins to the backend, the backend is asked before that, unless the service
   offers it the protocol `postgresql`: then TLS begins at once there, which PostgreSQL knows since version 17.
5. A client may leave all this out and begin with TLS (`sslnegotiation=direct`).
"""

from __future__ import annotations

from typing import Final

POSTGRESQL: Final = "postgresql"
"""The protocol that is offered by ALPN where TLS begins at once."""
SSL_REQUEST: Final = bytes.fromhex("00000008 04d2162f")
GSSENC_REQUEST: Final = bytes.fromhex("00000008 04d21630")
REQUEST_BYTES: Final = 8
YES: Final = b"S"
"""To an SSLRequest: begin with TLS."""
NO: Final = b"N"


def read_request(data: bytes) -> bytes | int:
    """Find a request at the beginning of what a client has sent.

    Returns:
        SSL_REQUEST or GSSENC_REQUEST; empty: it begins with neither; or REQUEST_BYTES: it may still become one.
    """
    head = data[:REQUEST_BYTES]
    if head in (SSL_REQUEST, GSSENC_REQUEST):
        return head
    if data and (SSL_REQUEST.startswith(head) or GSSENC_REQUEST.startswith(head)):
        return REQUEST_BYTES
    return b""
