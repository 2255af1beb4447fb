"""ClientHellos for tests: real ones, as Python's ssl sends them, and any that a test composes."""

from __future__ import annotations

import ssl
import struct
from collections.abc import Sequence


def real_hello(sni: str | None = None, alpn: Sequence[str] = ()) -> bytes:
    """Return what Python's ssl sends first."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # which Debian's own builds leave lower
    context.check_hostname = sni is not None
    if alpn:
        context.set_alpn_protocols(list(alpn))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=sni)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake cannot be over before it was answered")


def vector(data: bytes, size: int) -> bytes:
    """Return data behind its length of so many bytes."""
    return len(data).to_bytes(size) + data


def extension(kind: int, content: bytes) -> bytes:
    """Return one extension."""
    return struct.pack("!H", kind) + vector(content, 2)


def names(*hosts: bytes) -> bytes:
    """Return a server_name extension."""
    return extension(0, vector(b"".join(b"\0" + vector(host, 2) for host in hosts), 2))


def protocols(*words: bytes) -> bytes:
    """Return an ALPN extension."""
    return extension(16, vector(b"".join(vector(word, 1) for word in words), 2))


def message(extensions: bytes | None, *, kind: int = 1, behind: bytes = b"") -> bytes:
    """Return the handshake message of a ClientHello with these extensions; None: without the field at all."""
    body = b"\x03\x03" + bytes(32) + vector(b"", 1) + vector(b"\x13\x01", 2) + vector(b"\0", 1)
    if extensions is not None:
        body += vector(extensions, 2)
    return bytes([kind]) + vector(body + behind, 3)


def records(content: bytes, *sizes: int) -> bytes:
    """Return handshake records: with fragments of these sizes, and the rest in further ones of up to 16 KiB."""
    pieces = []
    for size in (*sizes, *[2**14] * (len(content) // 2**14 + 1)):
        piece, content = content[:size], content[size:]
        if piece:
            pieces.append(b"\x16\x03\x01" + vector(piece, 2))
    return b"".join(pieces)
