"""A supervisor's listening sockets: opened once, lent to workers, and closed so that nobody is reset; and workers' inboxes.

Theory of operation:

1. An address has one socket for each worker, all with SO_REUSEPORT: the kernel spreads clients over them. A Unix
   socket, and one that came from outside (systemd, a process before us), is one, from which all workers accept.
2. Closing a listening socket resets whoever waits in its queue. So a socket whose address is configured is never
   closed here, whatever happens to workers. When an address goes, new clients are kept out first: a filter drops
   their SYN, and nothing else, while the workers go on accepting for GRACE_S, which gives half-open handshakes
   time for their last packet. Then the workers take what is left in the queue, and it is closed.
3. Whoever inherits a socket takes the filter off that it may still have (`net.syn_filter`).
4. Whoever holds a listening socket accepts from it, or has let go of it: a copy that is left open keeps a port open
   that nobody serves. So a process closes its copies as soon as its workers have theirs.
5. `shares` says which sockets each worker accepts from: its own; and of those whose worker is not there, some.
   Each socket has a worker as long as any is alive, and each worker has a socket.
6. `spread` makes it so. It lends everything new before it takes anything back, so that each socket has somebody at
   every moment. Then workers are told of each other, for those who hand clients over (`worker.client_handoff`).
7. A worker that is about to serve gets its sockets before it counts as being there (`lend_first`).
8. When this process leaves, nothing is lent any more (`stopped`). What is being lent just then stays open until it has arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, Final

from dataplane.background import together
from dataplane.errors import PeerError, PeerGone
from dataplane.ipc.messages import INBOX
from dataplane.net.syn_filter import keep_out
from dataplane.node.listeners import NewSockets, close
from dataplane.node.routers import Addresses
from dataplane.supervisor.workers import Share, WorkerProcess, Workers

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
    """All listening sockets, by address (dataplane.node.listeners.Listeners)."""

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

    def shut(self, addresses: Addresses) -> None:
        """Give up what is not listened on any more; `finish` closes it, after the workers have."""
        for address in [address for address in self.sockets if address not in addresses]:
            self._closing.append((address, self.sockets.pop(address)))

    def open(self, addresses: Addresses) -> None:
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
            shared = bool(group[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))
            if shared and group[0].family != socket.AF_UNIX:
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


class Inboxes:
    """What workers take each other's clients from: one for each that has ever been, or those in it would be lost."""

    def __init__(self) -> None:
        self._ends: list[tuple[socket.socket, socket.socket]] = []

    def __len__(self) -> int:
        return len(self._ends)

    def grow(self, count: int) -> None:
        """Have at least `count`; with an OSError, those that could be had are kept."""
        while len(self._ends) < count:
            self._ends.append(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC))

    def reader(self, index: int) -> int:
        """Return the descriptor from which worker `index` takes clients."""
        return self._ends[index][0].fileno()

    def close(self) -> None:
        """Close ours, for good: whoever is in one that no worker reads any more must not wait for nobody."""
        for end in [end for pair in self._ends for end in pair]:
            end.close()
        self._ends = []

    def introduce(
        self, workers: Collection[WorkerProcess], begin: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        """Tell workers of each other, each in a task that `begin` makes: nobody waits for one that hangs."""
        for worker in workers:
            others = [(one.index, one.row) for one in workers if one is not worker]
            if others != worker.siblings:
                worker.siblings = others
                _ = begin(self._meet(worker, others))

    async def _meet(self, worker: WorkerProcess, others: list[tuple[int, int]]) -> None:
        rows = [row for _, row in others]
        writers = [self._ends[index][1].fileno() for index, _ in others]
        with contextlib.suppress(PeerGone):
            try:
                await worker.ask("meet", rows, writers)
            except PeerError as error:
                worker.kill(f"it could not meet its siblings: {error}")


class Lending:
    """Who of the workers holds which sockets."""

    def __init__(self, workers: Workers, sockets: SocketGroup) -> None:
        self.stopped = False
        """This process leaves: nothing is lent any more."""
        self.workers = workers
        self.sockets = sockets
        self.inboxes = Inboxes()
        self._spreading = asyncio.Lock()

    async def lend_first(self, worker: WorkerProcess) -> None:
        """Lend a worker what it is to hold when it is there; raises what `WorkerProcess.ask` does."""
        wanted = self._wanted({**self.workers.serving, worker.index: worker})
        await self._lend(worker, wanted[worker.index])

    async def spread(self) -> None:
        """Have each worker hold what it should, in the order of rule 6."""
        async with self._spreading:
            if self.stopped:
                return
            serving = dict(self.workers.serving)
            wanted = self._wanted(serving)
            for worker in serving.values():
                worker.held = {
                    one for one in worker.held if one[0] in self.sockets.sockets or one[0] == INBOX
                }
            results = await together(
                self._lend(one, wanted[index] - one.held) for index, one in serving.items()
            )
            for worker, result in zip(serving.values(), results, strict=True):
                if isinstance(result, PeerError):
                    worker.kill(f"it could not take a socket: {result}")
                elif isinstance(result, Exception) and not isinstance(result, PeerGone):
                    raise result
            for index, worker in serving.items():
                if surplus := worker.held - wanted[index]:
                    worker.channel.send("drop", sorted(surplus))
                    worker.held -= surplus
            if not self.stopped:
                self.inboxes.introduce(serving.values(), self.workers.begin)

    async def close(self, *, last: bool) -> None:
        """Hold no listening socket and no inbox any more; unless `last`, others have copies, and only ours are closed."""
        async with self._spreading:
            if last:
                self.sockets.close()
            else:
                self.sockets.leave()
            self.inboxes.close()

    def _wanted(self, serving: Mapping[int, WorkerProcess]) -> dict[int, set[Share]]:
        wanted: dict[int, set[Share]] = {index: set() for index in serving}
        workers = max(self.workers.count, max(serving, default=0) + 1)
        counts = {address: len(group) for address, group in self.sockets.sockets.items()}
        for address, count in {**counts, INBOX: len(self.inboxes)}.items():
            for index, held in shares(count, serving, workers).items():
                wanted[index] |= {(address, number) for number in held}
        return wanted

    async def _lend(self, worker: WorkerProcess, sockets: set[Share]) -> None:
        chosen = sorted(sockets)
        if chosen:
            fds = [
                self.inboxes.reader(number)
                if address == INBOX
                else self.sockets.sockets[address][number].fileno()
                for address, number in chosen
            ]
            await worker.ask("listen", chosen, fds)
            worker.held |= sockets
