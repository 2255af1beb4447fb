"""A TCP proxy that does one thing wrong; one class per fault.

Put between a client and the balancer, or between the balancer and a backend. Whatever the fault, FIN is passed
on as FIN and RST as RST, each behind the bytes before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from tests.support.server import Connection, Server


class FaultProxy(Server):
    """Relays each connection to `target`; without a subclass, faithfully.

    Args:
        target: `host:port`.
    """

    def __init__(self, target: str, **options: Any) -> None:
        super().__init__(None, **options)
        host, _, port = target.rpartition(":")
        self._target = (host.strip("[]"), int(port))

    async def serve(self, connection: Connection) -> None:
        family = socket.AF_INET6 if ":" in self._target[0] else socket.AF_INET
        far = Connection(socket.socket(family, socket.SOCK_STREAM))
        try:
            await asyncio.get_running_loop().sock_connect(far.sock, self._target)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(connection, far))
                both.create_task(self._pump(far, connection))
        except* OSError:
            # a RST from one side, or a target that refuses: the other side gets a RST
            far.reset_on_close()
            connection.reset_on_close()
        finally:
            far.close()

    async def _pump(self, source: Connection, sink: Connection) -> None:
        while data := await source.recv():
            await self.forward(data, source, sink)
        await self.finish(source, sink)

    async def forward(self, data: bytes, source: Connection, sink: Connection) -> None:
        """Pass `data` on; an `OSError` resets both sides."""
        await sink.send(data)

    async def finish(self, source: Connection, sink: Connection) -> None:
        """Pass the FIN of `source` on."""
        with contextlib.suppress(OSError):  # it has gone already
            sink.end()


class Latency(FaultProxy):
    """Each read's worth arrives `seconds` late, in order."""

    def __init__(self, target: str, *, seconds: float, **options: Any) -> None:
        super().__init__(target, **options)
        self.seconds = seconds

    async def forward(self, data: bytes, source: Connection, sink: Connection) -> None:
        await asyncio.sleep(self.seconds)
        await sink.send(data)


class Slicer(FaultProxy):
    """Every byte (or `size` bytes) is a segment of its own, acknowledged before the next is sent.

    A receiver that reads at once sees each alone; one that is late finds several.
    """

    def __init__(self, target: str, *, size: int = 1, **options: Any) -> None:
        super().__init__(target, **options)
        self.size = size

    async def forward(self, data: bytes, source: Connection, sink: Connection) -> None:
        for start in range(0, len(data), self.size):
            await sink.send(data[start : start + self.size])
            await sink.wait_acknowledged()


class Bandwidth(FaultProxy):
    """At most `rate` bytes a second each way, so that everything behind it feels back-pressure."""

    def __init__(self, target: str, *, rate: int, **options: Any) -> None:
        super().__init__(target, **options)
        self.rate = rate

    async def forward(self, data: bytes, source: Connection, sink: Connection) -> None:
        step = max(1, self.rate // 50)
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            await sink.send(piece)
            await asyncio.sleep(len(piece) / self.rate)


class ResetAfter(FaultProxy):
    """Resets both sides once `size` bytes from the target (or the client) have been passed on.

    Args:
        target: `host:port`.
        size: How many bytes still arrive.
        count: "answer" counts the target's bytes, "request" the client's.
    """

    def __init__(self, target: str, *, size: int, count: str = "answer", **options: Any) -> None:
        super().__init__(target, **options)
        self.size = size
        self.count = count

    async def forward(self, data: bytes, source: Connection, sink: Connection) -> None:
        from_client = source.sock.getsockname()[1] == self.port
        if from_client == (self.count == "answer"):
            await sink.send(data)
            return
        left = self.size - sink.sent
        if left > 0:
            await sink.send(data[:left])
        if sink.sent >= self.size:
            await sink.wait_acknowledged()
            raise ConnectionResetError


class SlowClose(FaultProxy):
    """Bytes pass at once, a FIN `seconds` later."""

    def __init__(self, target: str, *, seconds: float, **options: Any) -> None:
        super().__init__(target, **options)
        self.seconds = seconds

    async def finish(self, source: Connection, sink: Connection) -> None:
        await asyncio.sleep(self.seconds)
        await super().finish(source, sink)


class Partition(FaultProxy):
    """A network that `cut` splits: nothing passes, neither bytes nor FIN nor RST, until `heal`.

    Connections that come meanwhile complete here and meet silence.
    """

    def __init__(self, target: str, **options: Any) -> None:
        super().__init__(target, **options)
        self._whole = asyncio.Event()
        self._whole.set()

    def cut(self) -> None:
        """Stop everything."""
        self._whole.clear()

    def heal(self) -> None:
        """Let everything that waited pass."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._whole.set)

    async def forward(self, data: bytes, source: Connection, sink: Connection) -> None:
        await self._whole.wait()
        await sink.send(data)

    async def finish(self, source: Connection, sink: Connection) -> None:
        await self._whole.wait()
        await super().finish(source, sink)
