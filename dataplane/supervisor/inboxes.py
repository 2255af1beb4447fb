"""The inboxes of a supervisor's workers, and who knows whose; see worker.client_handoff for what they are for."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from dataplane.errors import PeerError, PeerGone

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine
    from typing import Any, TypeAlias

    from dataplane.supervisor.worker_process import WorkerProcess

    Begin: TypeAlias = Callable[[Coroutine[Any, Any, None]], object]

__all__ = ["Inboxes"]


class Inboxes:
    """One for each worker there has ever been: closing one would cost those who are in it."""

    def __init__(self) -> None:
        self._ends: list[tuple[socket.socket, socket.socket]] = []

    def __len__(self) -> int:
        return len(self._ends)

    def grow(self, count: int) -> None:
        """Have at least `count`.

        Raises:
            OSError: They cannot be had; those that could are kept.
        """
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

    def introduce(self, workers: Collection[WorkerProcess], begin: Begin) -> None:
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
