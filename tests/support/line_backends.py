"""A program for a namespace: backends that answer each line with who they are and who asked.

`python -m tests.support.line_backends b1=10.88.0.101:7000 …` answers `text` with `b1@10.88.0.11:text`, where the second part is the
address of who is connected: a balancer's. It is a process of its own, so that clients in the test's process find it quick.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from typing import cast


class _Lines(asyncio.Protocol):
    """One connection."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._said = b""
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._said = f"{self._name}@{transport.get_extra_info('peername')[0]}:".encode()

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._transport.write(b"".join(self._said + line + b"\n" for line in lines))


async def _serve(named: list[tuple[str, str]]) -> None:
    loop = asyncio.get_running_loop()
    for name, address in named:
        host, _, port = address.rpartition(":")
        await loop.create_server(functools.partial(_Lines, name), host, int(port), backlog=1024)
    print("serving", flush=True)  # noqa: T201 - it is waited for
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(
        _serve([(name, address) for name, _, address in (text.partition("=") for text in sys.argv[1:])])
    )
