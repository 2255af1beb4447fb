"""A supervisor's workers: who is there, and what all of them are asked or told. `succession` starts and replaces them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from dataplane.background import together
from dataplane.errors import PeerGone
from dataplane.ipc.messages import Verdict
from dataplane.net.backend import Backend
from dataplane.node.takeover_state import found
from dataplane.supervisor.worker_process import WorkerProcess

__all__ = ["CheckRelay", "Workers"]


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
        """Ask every worker, with `former` those that drain, too; those that die meanwhile are left out.

        Raises:
            PeerError: One could not.
        """
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


class CheckRelay:
    """Passes on what workers have to know of verdicts."""

    def __init__(self, tell: Callable[[list[Verdict]], None]) -> None:
        self._tell = tell
        self.ejected: set[tuple[int, str, str]] = set()
        """Which worker's process has ejected which backend of which service."""

    def judged(self, service: str, backend: Backend, *, changed: bool, passed: bool) -> None:
        """Take note of a verdict: a worker wants to know it if it has changed something, or ends an ejection there."""
        ejected = any(one[1:] == (service, backend.id) for one in self.ejected)
        if changed or (passed and ejected):
            self._tell([found(service, backend, passed=passed)])
