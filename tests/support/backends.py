"""Backends that behave, and backends that misbehave in one defined way each."""

from __future__ import annotations

import hashlib
import socket
from typing import Any, Self

from tests.support.server import Connection, Server
from tests.support.wait import DEADLINE_S, wait_for


def payload(size: int, seed: int = 0) -> bytes:
    """Return `size` bytes in which every lost, doubled or swapped piece shows: no short period, no runs."""
    return hashlib.shake_128(seed.to_bytes(8, "big")).digest(size)


class EchoServer(Server):
    """Sends back what it receives, and ends after the peer does."""

    async def serve(self, connection: Connection) -> None:
        while data := await connection.recv():
            await connection.send(data)


class LineServer(Server):
    """Answers each line with `name:line` and a newline, so that a client sees who served it."""

    async def serve(self, connection: Connection) -> None:
        async for line in connection.lines():
            await connection.send(f"{self.name}:".encode() + line + b"\n")


class BannerServer(LineServer):
    """Speaks first, like SSH, SMTP and MySQL; then a `LineServer`."""

    def __init__(self, name: str | None = None, *, banner: bytes = b"220 ready\n", **options: Any) -> None:
        super().__init__(name, **options)
        self.banner = banner

    async def serve(self, connection: Connection) -> None:
        await connection.send(self.banner)
        await super().serve(connection)


class HalfCloser(Server):
    """Reads up to the peer's FIN, then answers `answer`, then ends: needs a half-close that is kept."""

    def __init__(self, name: str | None = None, *, answer: bytes, **options: Any) -> None:
        super().__init__(name, **options)
        self.answer = answer
        self.requests: list[bytes] = []

    async def serve(self, connection: Connection) -> None:
        self.requests.append(await connection.recv_to_end())
        await connection.send(self.answer)


class EarlyAnswerer(Server):
    """Answers without reading and closes on unread input, as HTTP servers do that refuse an upload.

    The peer's kernel has the whole answer before the RST follows, so whoever loses a byte of it loses it by
    his own doing.
    """

    def __init__(self, name: str | None = None, *, answer: bytes | None = None, **options: Any) -> None:
        super().__init__(name, **options)
        self.answer = payload(200_000) if answer is None else answer

    async def serve(self, connection: Connection) -> None:
        await connection.wait_readable()  # early, but not before there is something to leave unread
        await connection.send(self.answer)
        await connection.wait_acknowledged()


class Resetter(Server):
    """Sends `after` bytes, as soon as the client has sent any, and resets.

    Args:
        after: 0 resets before the first byte of an answer.
        wait: False resets without waiting for the client to speak.
    """

    def __init__(self, name: str | None = None, *, after: int = 0, wait: bool = True, **options: Any) -> None:
        super().__init__(name, **options)
        self.answer = payload(after)
        self.wait = wait

    async def serve(self, connection: Connection) -> None:
        if self.wait:
            await connection.recv()
        if self.answer:
            await connection.send(self.answer)
            await connection.wait_acknowledged()
        connection.reset()


class Sink(Server):
    """Swallows everything; `totals` has a (size, sha256 hex) for each connection that has ended."""

    def __init__(self, name: str | None = None, **options: Any) -> None:
        super().__init__(name, **options)
        self.totals: list[tuple[int, str]] = []

    async def serve(self, connection: Connection) -> None:
        digest = hashlib.sha256()
        while data := await connection.recv():
            digest.update(data)
        self.totals.append((connection.received, digest.hexdigest()))
        self.note()


class Source(Server):
    """Sends `data` to everybody, then ends, and reads up to the peer's FIN."""

    def __init__(self, name: str | None = None, *, data: bytes, **options: Any) -> None:
        super().__init__(name, **options)
        self.data = data

    async def serve(self, connection: Connection) -> None:
        await connection.send(self.data)
        connection.end()
        await connection.recv_to_end()


class Recorder(Server):
    """Keeps every byte of each connection, in order of arrival, and answers `answer` to whatever comes.

    `streams[i]` grows while connection i is open; `wait_until` is woken by each read.
    """

    def __init__(self, name: str | None = None, *, answer: bytes = b"", **options: Any) -> None:
        super().__init__(name, **options)
        self.answer = answer
        self.streams: list[bytearray] = []

    async def serve(self, connection: Connection) -> None:
        stream = bytearray()
        self.streams.append(stream)
        while data := await connection.recv():
            stream += data
            self.note()
            if self.answer:
                await connection.send(self.answer)

    def wait_received(self, data: bytes, stream: int = 0) -> None:
        """Return once connection `stream` has brought exactly `data`."""
        self.wait_until(
            lambda: len(self.streams) > stream and bytes(self.streams[stream]) == data,
            f"{data!r} on connection {stream}",
        )


class BlackHole(Server):
    """Listens and never accepts: connections complete in the kernel and meet silence.

    Args:
        full: The queue is full from the start, so that no connection even completes: SYNs meet silence.
    """

    accepts = False

    def __init__(self, name: str | None = None, *, full: bool = False, **options: Any) -> None:
        super().__init__(name, backlog=0 if full else 1024, **options)
        self._full = full
        self._filler: socket.socket | None = None

    def start(self) -> Self:
        super().start()
        if self._full and self._filler is None:
            # a queue of length 0 holds one connection
            self._filler = socket.create_connection((self.host, self.port), timeout=DEADLINE_S)
            wait_for(lambda: self.queued() == 1, f"{self.name}'s queue to be full")
        return self

    def _end(self, *, reset: bool) -> None:
        if self._filler is not None:
            self._filler.close()
            self._filler = None
        super()._end(reset=reset)

    async def serve(self, connection: Connection) -> None:
        """Never called."""
