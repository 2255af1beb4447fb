"""One worker as its supervisor sees it: a process, and the channel to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING, Any, Final

from dataplane.errors import PeerError, PeerGone
from dataplane.ipc.channel import Channel
from dataplane.report.merge import whole_services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dataplane.ipc.messages import Families
    from schemas.status import ServiceStatus

__all__ = ["WorkerProcess"]

ANSWER_S: Final = 30.0
"""A worker that does not answer for so long hangs."""


class WorkerProcess:
    """One worker's process, from its start to its end (dataplane.ipc.channel.Handler)."""

    def __init__(
        self, index: int, row: int, hear: Callable[[WorkerProcess, str, dict[str, Any]], None]
    ) -> None:
        self.index = index
        self.row = row
        self.held: set[tuple[str, int]] = set()
        """The sockets that are lent to it."""
        self.siblings: list[tuple[int, int]] = []
        """The index and the row of each worker that it has been told of."""
        self.started_at = time.monotonic()
        self.pid = 0
        self.last_report: dict[str, ServiceStatus] = {}
        self.last_families: Families = []
        self.leaving = False
        self.channel: Channel
        self.process: asyncio.subprocess.Process
        self._hear = hear

    async def answer(self, kind: str, body: Any, sockets: list[int], part: Callable[[Any], None]) -> Any:
        """Refuse: workers ask nothing."""
        del body, part
        for fd in sockets:
            os.close(fd)
        raise LookupError(kind)

    def notice(self, kind: str, body: Any) -> None:
        """Take an event, or the last numbers."""
        if kind == "event":
            self._hear(self, *body)
        elif kind == "farewell":
            parts, self.last_families = body
            self.last_report = whole_services(parts)

    async def ask(self, kind: str, body: Any = None, fds: Iterable[int] = ()) -> tuple[Any, list[Any]]:
        """Ask it; a worker that does not answer is killed.

        Raises:
            PeerGone: It has died, or had to be killed.
            PeerError: It could not.
        """
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self.channel.request(kind, body, list(fds))
        except TimeoutError:
            self.kill("it does not answer")
            raise PeerGone from None

    async def part(self, *, last: bool) -> None:
        """Have it drain, and return when it holds no listening socket any more; if it does not let go, it is killed."""
        with contextlib.suppress(PeerGone):
            try:
                await self.ask("drain", last)
            except PeerError as error:
                self.kill(f"it could not let go of its sockets: {error}")

    def kill(self, cause: str) -> None:
        """End it now."""
        self._hear(self, "worker_killed", {"pid": self.pid, "cause": cause})
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
