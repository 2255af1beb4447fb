"""Host names of backends, looked up beside the connection path and kept fresh."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Final

from dataplane.core.reasons import DiscardCause
from dataplane.net.sockopts import to_sockaddr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dataplane.net.backend import Backend
    from dataplane.net.sockopts import SocketAddress
    from dataplane.runtime.node import Node
    from dataplane.runtime.running import Running

__all__ = ["Resolver"]

REFRESH_S: Final = 15.0
"""How often a name is looked up again; asyncio's resolver does not tell a record's own lifetime."""
RETRY_S: Final = 2.0
CONNECT_S: Final = 1.0
"""For each address that is tried, if a name has several."""


class Resolver:
    """Gives backends with a host name their address. A lookup that fails later keeps the last one."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look now: the configuration has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Look up for ever."""
        while True:
            self._wake.clear()
            named = [
                (running, backend)
                for running in self._node.running.values()
                for backend in running.service.backends.values()
                if to_sockaddr(backend.spec.address) is None
            ]
            await asyncio.gather(*(self._resolve(running, backend) for running, backend in named))
            if not named:
                await self._wake.wait()
                continue
            failed = any(backend.address is None for _, backend in named)
            # Not wait_for(), which can swallow a cancellation on Python 3.11.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S if failed else REFRESH_S):
                    await self._wake.wait()

    async def _resolve(self, running: Running, backend: Backend) -> None:
        name = backend.spec.address
        host, _, port = name.rpartition(":")
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        except OSError as error:
            self._failed(running, backend, error.strerror or str(error))
            return
        literals = [
            f"[{entry[4][0]}]:{port}" if ":" in str(entry[4][0]) else f"{entry[4][0]}:{port}"
            for entry in found
        ]
        addresses = {
            literal: address for literal in literals if (address := to_sockaddr(literal)) is not None
        }
        known = backend.address
        if not addresses or (
            known in addresses.values() and self._node.health(running, backend).state.usable
        ):
            return
        literal = await _first_that_accepts(addresses)
        if backend.spec.address != name or backend.removed or addresses[literal] == known:
            return
        backend.address = addresses[literal]
        backend.resolve_error = ""
        if known is not None:
            backend.pool.clear(DiscardCause.CHANGED)
        self._node.events.emit(
            "resolved", service=running.service.name, backend=backend.id, name=name, address=literal
        )
        self._node.reassess(running, backend)

    def _failed(self, running: Running, backend: Backend, cause: str) -> None:
        cause = f"name not resolved: {cause}"
        if backend.address is None and backend.resolve_error != cause:
            backend.resolve_error = cause
            self._node.events.emit(
                "unresolved", service=running.service.name, backend=backend.id, cause=cause
            )


async def _first_that_accepts(addresses: Mapping[str, SocketAddress]) -> str:
    """Return the first address on which somebody listens; if there is none (or only one), the first.

    A name often has addresses of both families while the server listens on one of them: `localhost`, above all.
    """
    if len(addresses) > 1:
        for literal, address in addresses.items():
            kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
            with socket.socket(address.family, kind) as sock, contextlib.suppress(OSError):
                async with asyncio.timeout(CONNECT_S):
                    await asyncio.get_running_loop().sock_connect(sock, address.sockaddr)
                return literal
    return next(iter(addresses))
