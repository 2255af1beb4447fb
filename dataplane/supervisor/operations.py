"""What operators do with workers: replace all of them, or have more or fewer (dataplane.api.routes.Workers)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from dataplane.errors import Refused
from dataplane.node.apply import Applier
from dataplane.supervisor.lending import Lending
from dataplane.supervisor.listening_sockets import SocketGroup
from dataplane.supervisor.succession import FAILURES, Succession

__all__ = ["Operations"]


class Operations:
    """Replaces workers one by one, and changes how many there are, up to `most`."""

    def __init__(
        self,
        succession: Succession,
        lending: Lending,
        sockets: SocketGroup,
        applier: Applier,
        most: int,
        emit: Callable[..., None],
    ) -> None:
        self._workers = lending.workers
        self._succession = succession
        self._lending = lending
        self._sockets = sockets
        self._applier = applier
        self._most = most
        self.emit = emit
        self._resizing = asyncio.Lock()

    async def restart(self) -> dict[str, Any]:
        """Replace every worker, one at a time.

        Raises:
            Refused: A new worker did not come up; the old ones that were not replaced yet serve on.
        """
        self._refuse_late()
        self.emit("restart", workers=self._workers.count)
        try:
            pids = [(await self._succession.bring_up(index)).pid for index in range(self._workers.count)]
        except FAILURES as error:
            cause = str(error) or "the new worker died while starting"
            self.emit("restart_failed", cause=cause)
            raise Refused(503, "restart_failed", cause) from error
        self.emit("restarted", workers=self._workers.count)
        return {"workers": len(pids), "pids": pids}

    async def resize(self, count: int) -> dict[str, Any]:
        """Change the number of workers.

        More of them get sockets of their own, where the kernel can spread clients over them. Of fewer, those who go
        leave their sockets, which stay open for ever, to the others: closing one would reset who waits in it.

        Raises:
            Refused: It cannot be had. If no further sockets can, nothing has changed; if a worker did not come up,
                there are as many as came up before it.
        """
        if not 1 <= count <= self._most:
            raise Refused(422, "invalid", f"count: from 1 to {self._most}; more need a takeover")
        self._refuse_late()
        async with self._resizing:
            before = self._workers.count
            try:
                await self._resize(before, count)
            except FAILURES as error:
                raise Refused(503, "resize_failed", str(error) or "a worker died while starting") from error
            self.emit("resized", workers=count, before=before)
        return {"workers": count}

    async def _resize(self, before: int, count: int) -> None:
        workers = self._workers
        workers.count = count
        try:
            self._sockets.grow()
        except Refused:
            workers.count = before
            raise
        for index in range(before, count):
            try:
                await self._succession.bring_up(index)
            except FAILURES:
                workers.count = index
                await self._lending.spread()  # somebody has to accept from what it would have had
                raise
        leaving = [workers.serving.pop(index) for index in range(count, before) if index in workers.serving]
        await self._lending.spread()
        for worker in leaving:
            _ = self._succession.let_go(worker)

    def _refuse_late(self) -> None:
        if self._applier.refusal is not None:
            raise self._applier.refusal
