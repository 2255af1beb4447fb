"""The listening sockets of a supervisor: opened once, lent to workers, and closed so that nobody is reset.

Theory of operation:

1. An address has one socket for each worker, all with SO_REUSEPORT: the kernel spreads clients over them. A Unix
   socket, and one that came from outside (systemd, a process before us), is one, from which all workers accept.
2. `shares` says which sockets each worker accepts from: its own; and of those whose worker is not there, some.
   Each socket has a worker as long as any is alive, and each worker has a socket.
3. Closing a listening socket resets whoever waits in its queue. So a socket whose address is configured is never
   closed here, whatever happens to workers. When an address goes, new clients are kept out first: a filter drops
   their SYN, and nothing else, while the workers go on accepting for GRACE_S, which gives half-open handshakes
   time for their last packet. Then the workers take what is left in the queue, and it is closed.
4. Whoever inherits a socket takes the filter off that it may still have (`net.syn_filter`).
5. Whoever holds a listening socket accepts from it, or has let go of it: a copy that is left open keeps a port open
   that nobody serves. So a process closes its copies as soon as its workers have theirs.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection, Mapping
from typing import Final

from dataplane.net.syn_filter import keep_out
from dataplane.node.listeners import NewSockets, close

__all__ = ["SocketGroup", "shares"]

GRACE_S: Final = 0.1
"""More than the round trip of nearly every client; who is slower finds the address gone."""


def shares(count: int, live: Collection[int], workers: int) -> dict[int, list[int]]:
    """Return which of an address's sockets each live worker accepts from.

    Args:
        count: How many sockets there are, at least 1.
        live: The workers that are there, 0 <= number < workers.
        workers: How many there should be.
    """
    there = sorted(live)
    result: dict[int, list[int]] = {worker: [] for worker in there}
    for index in range(count):
        if there:
            own = index % workers
            result[own if own in result else there[index % len(there)]].append(index)
    for worker, held in result.items():
        if not held:
            held.append(worker % count)
    return result


class SocketGroup:
    """All of them, by address (dataplane.node.listeners.Listeners)."""

    def __init__(self, workers: Callable[[], int]) -> None:
        self.sockets: dict[str, list[socket.socket]] = {}
        self.new = NewSockets(self.sockets, workers, reuse_port=True)
        self._closing: list[tuple[str, list[socket.socket]]] = []

    def pairs(self) -> list[tuple[str, socket.socket]]:
        """Return each socket with its address."""
        return [(address, sock) for address, group in self.sockets.items() for sock in group]

    async def keep_out(self, addresses: Collection[str] = ()) -> None:
        """Let nobody else into the queues of whatever is not among `addresses`, and wait until nobody can come."""
        leaving = [
            sock for address, group in self.sockets.items() if address not in addresses for sock in group
        ]
        for sock in leaving:
            keep_out(sock)
        if leaving:
            await asyncio.sleep(GRACE_S)

    def shut(self, addresses: Mapping[str, str]) -> None:
        """Give up what is not listened on any more; `finish` closes it, after the workers have."""
        for address in [address for address in self.sockets if address not in addresses]:
            self._closing.append((address, self.sockets.pop(address)))

    def open(self, addresses: Mapping[str, str]) -> None:
        """Take what was opened."""
        self.sockets |= self.new.take(addresses)

    def finish(self) -> None:
        """Close what was given up."""
        closing, self._closing = self._closing, []
        for address, group in closing:
            close(address, group)

    def grow(self) -> None:
        """Open a socket for each worker that has none, where the kernel can spread clients over them, or be `Refused`."""
        for address, group in self.sockets.items():
            if group[0].family != socket.AF_UNIX and _shares_port(group[0]):
                self.new.grow(address, group)

    async def close_inherited(self, kept: Collection[str]) -> list[str]:
        """Close what nobody listens on of what was inherited, but for addresses that are `kept`; return the closed ones."""
        unused = {address: group for address, group in self.new.inherited.items() if address not in kept}
        self.new.inherited = {
            address: self.new.inherited[address] for address in kept if address not in unused
        }
        for group in unused.values():
            for sock in group:
                keep_out(sock)
        if unused:
            await asyncio.sleep(GRACE_S)
        for address, group in unused.items():
            close(address, group)
        return list(unused)

    def close(self) -> None:
        """Close everything: nobody accepts from it any more."""
        for address, group in self.sockets.items():
            close(address, group)
        self.leave()

    def leave(self) -> None:
        """Close our copies of everything, which others hold as well, and accept from."""
        for _, sock in self.pairs():
            sock.close()
        self.sockets.clear()
        self.new.forget_inherited()


def _shares_port(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))
