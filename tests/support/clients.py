"""Blocking clients: what a test says to a listener, and what it gets."""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path

STEP_S = 30.0
"""How long one blocking call may take before the test fails."""


def dial(address: str, *, timeout_s: float = STEP_S, source: str | None = None) -> socket.socket:
    """Connect.

    Args:
        address: `host:port` or `unix:/path`.
        timeout_s: For this call and each later one on the socket.
        source: The address to come from, as 127.0.0.2.
    """
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout_s)
        sock.connect(str(Path(address.removeprefix("unix:"))))
        return sock
    host, _, port = address.rpartition(":")
    near = (source, 0) if source else None
    return socket.create_connection((host.strip("[]"), int(port)), timeout_s, source_address=near)


def ask(address: str, message: bytes = b"hello\n", *, source: str | None = None) -> bytes:
    """Connect, send, half-close, and return everything up to the FIN."""
    with dial(address, source=source) as sock:
        sock.sendall(message)
        sock.shutdown(socket.SHUT_WR)
        return read_to_end(sock)


def say(sock: socket.socket) -> str:
    """Say a line to a `LineServer`, and return the name of whoever answers it; nothing if the connection was cut."""
    answer = b""
    with contextlib.suppress(ConnectionError):
        sock.sendall(b"x\n")
        while not answer.endswith(b"\n") and (piece := sock.recv(100)):
            answer += piece
    return answer.partition(b":")[0].decode()


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """Return `size` bytes, or fewer if the peer ends before."""
    data = bytearray()
    while len(data) < size and (piece := sock.recv(size - len(data))):
        data += piece
    return bytes(data)


def read_to_end(sock: socket.socket) -> bytes:
    """Return everything up to the FIN; a RST is raised."""
    data = bytearray()
    while piece := sock.recv(65536):
        data += piece
    return bytes(data)


def wait_cut(sock: socket.socket) -> None:
    """Wait until a deadline has ended the connection: with a reset, if something was said on it just now."""
    with contextlib.suppress(ConnectionResetError):
        assert sock.recv(1) == b""


def read_to_reset(sock: socket.socket) -> bytes:
    """Return everything up to the RST.

    Raises:
        AssertionError: It ended with a FIN.
    """
    data = bytearray()
    try:
        while piece := sock.recv(65536):
            data += piece
    except ConnectionResetError:
        return bytes(data)
    msg = f"a clean end, not a reset, after {len(data)} bytes"
    raise AssertionError(msg)


def reset(sock: socket.socket) -> None:
    """Close with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
