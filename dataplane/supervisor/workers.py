"""A supervisor's workers: who is there, and what all of them are asked or told. `succession` starts and replaces them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from dataplane.background import together
from dataplane.core.phase import Life, Phase
from dataplane.errors import PeerError, PeerGone
from dataplane.ipc.channel import Channel
from dataplane.report.figures import Figures
from dataplane.supervisor.fork_server import Forked, ForkServer

Hear = Callable[["WorkerProcess", str, dict[str, Any]], None]
Share = tuple[str, int]
"""An address, and which of its sockets."""
ANSWER_S: Final = 30.0
"""A worker that does not answer for so long hangs."""
PARTING_S: Final = 1.0
"""How long after its last word a worker's process may take to end, and the other way round."""


class WorkerProcess:
    """One worker's process, from its start to its end; `hear` is called with what happens in it, and to it."""

    process: Forked
    channel: Channel

    def __init__(self, index: int, row: int, hear: Hear) -> None:
        self.index = index
        self.row = row
        self.life = Life()
        self.held: set[Share] = set()
        """The sockets that are lent to it."""
        self.siblings: list[tuple[int, int]] = []
        """The index and the row of each worker that it has been told of."""
        self.started_at = time.monotonic()
        self.pid = 0
        self.last_told: dict[bool, list[Figures]] = {}
        """Its figures, as far as they are known: with each backend of a crowd, and with crowds as one."""
        self._hear = hear

    @property
    def leaving(self) -> bool:
        """Whether it was told to drain."""
        return self.life.phase is Phase.DRAINING

    async def start(self, server: ForkServer, *, affinity: bool) -> None:
        """Start the process, with `affinity` on a core of its own; raises what `ForkServer.fork` does."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self.process = await server.fork(theirs)
            except BaseException:
                ours.close()
                raise
        self.pid = self.process.pid
        self.channel = Channel(ours, notice=self.notice)
        if affinity:
            cores = sorted(os.sched_getaffinity(0))
            with contextlib.suppress(OSError):
                os.sched_setaffinity(self.pid, {cores[self.index % len(cores)]})

    async def run(self, on_lost: Callable[[], None]) -> int | None:
        """Listen to it until its process has ended; return the exit status, or None if nobody knows it.

        Args:
            on_lost: Called if it does not hear us any more, but lives: it could not take what it was sent (out of
                descriptors), takes itself for an orphan, and drains.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self.channel.run())
            ended = group.create_task(self.process.wait())
            closed = group.create_task(self.channel.closed.wait())
            await asyncio.wait({ended, closed}, return_when=asyncio.FIRST_COMPLETED)
            # the other follows: what it said last may still be in the socket; and a process ends after its descriptors
            await asyncio.wait({ended, closed}, timeout=PARTING_S)
            self.channel.close()
            if not ended.done():
                on_lost()
            return await ended

    def notice(self, kind: str, body: Any) -> None:
        """Take an event, or the last numbers."""
        if kind == "event":
            self._hear(self, *body)
        elif kind == "farewell":
            self.last_told = body

    async def ask(self, kind: str, body: Any = None, fds: Iterable[int] = ()) -> tuple[Any, list[Any]]:
        """Ask it: PeerError, it could not; PeerGone, it has died. One that does not answer is killed."""
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


class Workers:
    """All workers; `count` is how many there should be."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.serving: dict[int, WorkerProcess] = {}
        """Those who accept, by index."""
        self._alive: set[WorkerProcess] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Own the tasks that have to do with workers, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await asyncio.Event().wait()

    def begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Do something in a task; an error that it raises ends this process, and the workers serve on."""
        assert self._group is not None  # noqa: S101 - run() has begun
        return self._group.create_task(work)

    def add(self, worker: WorkerProcess) -> None:
        """Take note of one that has been started; it does not accept yet."""
        self._alive.add(worker)
        self._empty.clear()

    def remove(self, worker: WorkerProcess) -> None:
        """Take note that one has ended."""
        self._alive.discard(worker)
        if not self._alive:
            self._empty.set()

    async def wait_empty(self) -> None:
        """Wait until the last one has ended."""
        await self._empty.wait()

    async def ask_all(
        self, kind: str, body: Any = None, *, former: bool = False
    ) -> list[tuple[WorkerProcess, Any, list[Any]]]:
        """Ask all workers, with `former` those that drain, too; one's PeerError is raised, and who dies is left out."""
        asked = [*self.serving.values(), *(one for one in self._alive if former and one.leaving)]
        results = await together(one.ask(kind, body) for one in asked)
        answers = []
        for worker, result in zip(asked, results, strict=True):
            if isinstance(result, PeerGone):
                continue
            if isinstance(result, Exception):
                raise result
            answers.append((worker, *result))
        return answers

    def tell_all(self, kind: str, body: Any = None) -> None:
        """Tell every worker."""
        for worker in self.serving.values():
            worker.channel.send(kind, body)

    def reopen(self) -> None:
        """Have the access log opened anew by everybody who writes to it, those who drain or begin included."""
        for worker in self._alive:
            worker.channel.send("reopen", None)

    def kill_all(self) -> None:
        """End all workers now."""
        for worker in self._alive:
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()
