"""The connection of one active check: plain, or with TLS that begins on it.

With TLS, what is sent and received is what is inside it: the session of the standard library's `ssl` has memory on its
other side, and this module carries that to the socket and back.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Final

READ_BYTES: Final = 16 * 1024
LEAVE_BYTES: Final = 1024 * 1024
"""How much is read only to close cleanly; a backend that sends more gets a reset."""


class Connection:
    """A probe's connection: a raw non-blocking socket, driven by the event loop.

    Args:
        sock: Connected and non-blocking.
        finish_first: Whether `leave` sends the FIN before it reads the rest (see the text of `net.probes`).
    """

    __slots__ = ("_inside", "_loop", "_outside", "_sock", "finish_first", "received", "tls")

    def __init__(self, sock: socket.socket, *, finish_first: bool) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._outside, self._inside = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.finish_first = finish_first
        self.received = bytearray()
        self.tls: ssl.SSLObject | None = None
        """The session that has begun; None: what is sent is what the backend gets."""

    def endpoints(self) -> tuple[tuple[str, int] | None, tuple[str, int] | None]:
        """Return (own address, backend's address), both None on a Unix socket."""
        if self._sock.family == socket.AF_UNIX:
            return None, None
        own, peer = self._sock.getsockname(), self._sock.getpeername()
        return (own[0], own[1]), (peer[0], peer[1])

    async def begin_tls(self, context: ssl.SSLContext, server_name: str | None) -> None:
        """Do the client's side of a TLS handshake.

        Raises:
            OSError: The connection failed.
            ssl.SSLError: The handshake failed, or the backend closed the connection in it.
        """
        self.tls = tls = context.wrap_bio(self._outside, self._inside, server_hostname=server_name)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                self._feed(await self._loop.sock_recv(self._sock, READ_BYTES))
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    await self._flush()  # the alert that tells the backend why
                raise
            else:
                await self._flush()
                return

    async def send(self, data: bytes) -> None:
        """Send all of `data`; raises OSError."""
        if self.tls is None:
            await self._loop.sock_sendall(self._sock, data)
        elif data:
            self.tls.write(data)  # memory takes all of it
            await self._flush()

    async def receive(self) -> bool:
        """Add what comes next to `received`; raises OSError.

        Returns:
            False at the backend's FIN, and with TLS at its close_notify.
        """
        if self.tls is None:
            data = await self._loop.sock_recv(self._sock, READ_BYTES)
        else:
            data = await self._receive_inside(self.tls)
        self.received += data
        return bool(data)

    async def _receive_inside(self, tls: ssl.SSLObject) -> bytes:
        while True:
            try:
                return tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                await self._flush()
                self._feed(await self._loop.sock_recv(self._sock, READ_BYTES))
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""  # many servers send no close_notify, and what is there is judged

    def _feed(self, data: bytes) -> None:
        if data:
            self._outside.write(data)
        else:
            self._outside.write_eof()

    async def _flush(self) -> None:
        if self._inside.pending:
            await self._loop.sock_sendall(self._sock, self._inside.read())

    def finish(self) -> None:
        """Send a FIN, after TLS's own word for it; raises OSError."""
        if self.tls is not None:
            with contextlib.suppress(ssl.SSLError):  # it has no answer yet, or there was no handshake
                self.tls.unwrap()
            if self._inside.pending:
                self._sock.send(self._inside.read())  # it is small; where there is no room nobody reads
        self._sock.shutdown(socket.SHUT_WR)

    async def leave(self, within_s: float) -> None:
        """Close cleanly: read until the backend's FIN, for LEAVE_BYTES or `within_s` at most."""
        left = LEAVE_BYTES
        try:
            async with asyncio.timeout(within_s):
                if self.finish_first:
                    self.finish()
                while left > 0 and (data := await self._loop.sock_recv(self._sock, READ_BYTES)):
                    left -= len(data)
        except OSError:
            pass  # reset, or too slow (TimeoutError is one): the verdict stands, and nobody is owed anything
        finally:
            self.close()

    def leave_nowait(self) -> None:
        """Close as cleanly as is possible without waiting: read only what is there."""
        try:
            if self.finish_first:
                self.finish()
            for _ in range(LEAVE_BYTES // READ_BYTES):
                if not self._sock.recv(READ_BYTES):
                    break
        except OSError:
            pass  # nothing more there (BlockingIOError is one), or reset
        finally:
            self.close()

    def close(self) -> None:
        """Close at once."""
        self._sock.close()
