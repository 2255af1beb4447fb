"""A backend in the test's own event loop, for the prober to check."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

Behaviour: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytearray], Awaitable[None]]
"""What a connection meets; it adds what it reads to the last argument."""


class Backend:
    """A server whose behaviour is one coroutine, after which it reads to the end.

    `ends` gets ("fin" or "reset", what was read) for each connection, `accepted` counts them.
    """

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.ends: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.accepted = 0
        self.address = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Behave on one connection, then read to its end."""
        self.accepted += 1
        seen = bytearray()
        try:
            await self.behave(reader, writer, seen)
            while data := await reader.read(65536):
                seen += data
            self.ends.put_nowait(("fin", bytes(seen)))
        except OSError:  # EPIPE is a reset too, seen by a writer
            self.ends.put_nowait(("reset", bytes(seen)))
        finally:
            writer.close()


@asynccontextmanager
async def backend(
    behave: Behaviour | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    path: str | None = None,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[Backend]:
    """Run a backend on a free port (or one that is free at `host`, too), or on a Unix socket; without a behaviour it only reads.

    With a context it speaks TLS.
    """
    it = Backend(behave or saying())
    if path is None:
        server = await asyncio.start_server(it.serve, host, port, ssl=context)
        port = server.sockets[0].getsockname()[1]
        it.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    else:
        server = await asyncio.start_unix_server(it.serve, path, ssl=context)
        it.address = f"unix:{path}"
    async with server:
        yield it


def saying(*pieces: bytes, then_close: bool = False, after: bytes = b"") -> Behaviour:
    """Return a behaviour: read until `after` has come, if any, then send the pieces, each on its own."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray) -> None:
        while after not in seen:
            data = await reader.read(65536)
            if not data:  # it left without a word, and reading on would not wait for anything
                return
            seen += data
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if then_close:
            writer.write_eof()

    return behave
