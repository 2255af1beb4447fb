"""What a supervisor lends to its workers: listening sockets to accept from, and inboxes to take each other's clients from.

Theory of operation:

1. `shares` says who should hold what: each socket has a worker as long as any is there, and each worker has a socket.
2. `spread` makes it so. It lends everything new before it takes anything back, so that each socket has somebody at
   every moment. Then workers are told of each other, for those who hand clients over (`worker.client_handoff`).
3. A worker that is about to serve gets its sockets before it counts as being there (`lend_first`).
4. When this process leaves, nothing is lent any more (`stopped`). What is being lent just then stays open until it has arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any

from dataplane.background import together
from dataplane.errors import PeerError, PeerGone
from dataplane.ipc.messages import INBOX
from dataplane.supervisor.listening_sockets import SocketGroup, shares
from dataplane.supervisor.workers import Share, WorkerProcess, Workers

__all__ = ["Lending"]


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
        """Have each worker hold what it should, in the order of rule 2."""
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
