"""The inboxes of a supervisor's workers, and who knows whose; see worker.client_handoff for what they are for."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from dataplane.errors import PeerError, PeerGone

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection

    from dataplane.supervisor.worker_process import WorkerProcess

__all__ = ["Inboxes"]


class Inboxes:
    """One for each worker there has ever been: closing one would cost those who are in it."""

    def __init__(self) -> None:
        self.closed = False
        """Nobody is to learn of anybody any more."""
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
        self.closed = True
        for end in [end for pair in self._ends for end in pair]:
            end.close()
        self._ends = []

    def introduce(self, members: Collection[WorkerProcess], group: asyncio.TaskGroup) -> None:
        """Tell workers of each other, in tasks of `group`: nobody waits for one that hangs."""
        for member in members:
            others = [(one.index, one.row) for one in members if one is not member]
            if others != member.siblings and not self.closed:
                member.siblings = others
                group.create_task(self._meet(member, others))

    async def _meet(self, member: WorkerProcess, others: list[tuple[int, int]]) -> None:
        rows = [row for _, row in others]
        writers = [self._ends[index][1].fileno() for index, _ in others]
        with contextlib.suppress(PeerGone):
            try:
                await member.ask("meet", rows, writers)
            except PeerError as error:
                member.kill(f"it could not meet its siblings: {error}")
