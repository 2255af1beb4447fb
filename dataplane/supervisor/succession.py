"""How workers come and go: started, brought up to date, replaced one by one or when they die.

Theory of operation:

1. A worker is brought up in order: welcome, the snapshot that runs, what is known of health, its listening sockets.
   Only then does it count as being there, and only then does its predecessor, if it has one, begin to drain.
2. When a worker dies, the sockets that it alone accepted from are lent to those who are there (`lending`), at once:
   their queues have lost nobody. Its successor gets them back.
3. Successors are started at once, or after a delay that doubles while workers die young (`Pace`).
4. A worker that is told to end (a signal) stays until its successor is there; if there can be none, it stays.
5. When this process leaves, all drain (`let_all_go`), and none is started or replaced any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Final

from dataplane.background import together
from dataplane.core.phase import Turn
from dataplane.errors import PeerError, PeerGone, Refused
from dataplane.ipc.messages import Welcome, WorkerSettings
from dataplane.ipc.shared_counters import CounterBoard
from dataplane.supervisor.apply import WorkerReplicas
from dataplane.supervisor.fork_server import ForkServer
from dataplane.supervisor.lending import Lending
from dataplane.supervisor.tally import WorkerTally
from dataplane.supervisor.workers import PARTING_S, WorkerProcess, Workers

YOUNG_S: Final = 2.0
"""A worker that dies within this time is not replaced at once."""
FIRST_DELAY_S: Final = 0.1
MAX_DELAY_S: Final = 5.0
FAILURES: Final = (PeerGone, PeerError, OSError)
"""What is raised when a worker cannot be brought up."""


class Pace:
    """How soon the successor of a worker that died is started."""

    def __init__(self) -> None:
        self._young_deaths = 0

    def delay_s(self, lived_s: float) -> float:
        """Return the delay, in seconds, after a worker that has lived for so long."""
        if lived_s >= YOUNG_S:
            self._young_deaths = 0
            return 0.0
        self._young_deaths += 1
        return min(MAX_DELAY_S, FIRST_DELAY_S * (1 << min(10, self._young_deaths - 1)))


class Succession:
    """Has as many workers as there should be, started with `settings`."""

    def __init__(
        self,
        workers: Workers,
        lending: Lending,
        board: CounterBoard,
        settings: WorkerSettings,
        replicas: WorkerReplicas,
        tally: WorkerTally,
    ) -> None:
        self._workers = workers
        self._lending = lending
        self._board = board
        self._settings = settings
        self._replicas = replicas
        self._tally = tally
        self._pace = Pace()
        self.server = ForkServer()
        self._resizing = asyncio.Lock()
        self.make: Callable[..., WorkerProcess] = WorkerProcess

    async def start(self) -> None:
        """Bring all workers up; raise what `bring_up` raises for one of them."""
        for outcome in await together(self.bring_up(index) for index in range(self._workers.count)):
            if isinstance(outcome, Exception):
                raise outcome

    async def bring_up(self, index: int) -> WorkerProcess:
        """Start a worker and return it when it accepts; whoever was in its place drains.

        Raises:
            PeerGone: It died before it was there.
            PeerError: It could not run what it should.
            OSError: It could not be started.
        """
        self._lending.inboxes.grow(index + 1)
        worker = await self._spawn(index)
        try:
            welcome = Welcome(index, worker.row, self._board.rows, self._settings)
            await worker.ask("welcome", welcome, [self._board.fd])
            async with self._replicas.lock:  # no change may pass by a worker that does not count yet
                await self._replicas.brief(worker)
                self._refuse_late()
                await self._lending.lend_first(worker)
                self._refuse_late()
                predecessor = self._workers.serving.get(index)
                self._workers.serving[index] = worker
                worker.life.turn(Turn.SERVE, time.time())
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()
            raise
        if predecessor is not None:
            _ = self.let_go(predecessor)
        await self._lending.spread()
        self._tally.heard(worker, "worker_ready", {"pid": worker.pid})
        return worker

    def _refuse_late(self) -> None:
        if self._lending.stopped:
            raise PeerGone  # nobody would tell a worker to drain that comes now

    async def _spawn(self, index: int) -> WorkerProcess:
        row = self._board.take_row()
        if row is None:
            raise PeerError("too many former workers are still draining")
        worker = self.make(index, row, self._heard)
        try:
            await worker.start(self.server, affinity=self._settings.affinity)
        except BaseException:
            self._board.free_row(row)
            raise
        self._workers.add(worker)
        _ = self._workers.begin(self._watch(worker))
        return worker

    async def _watch(self, worker: WorkerProcess) -> None:
        def lost() -> None:
            _ = self._workers.begin(self._succeed(worker, "lost"))

        status = await worker.run(lost)
        self._workers.remove(worker)
        self._board.free_row(worker.row)
        self._tally.ended(worker)
        worker.life.turn(Turn.END, time.time())
        await self._succeed(worker, status)

    async def _succeed(self, worker: WorkerProcess, status: int | str | None) -> None:
        """Have siblings and a successor take the place of a worker that is gone, if it has not been filled yet."""
        index = worker.index
        if self._workers.serving.get(index) is not worker:
            return
        del self._workers.serving[index]
        if self._lending.stopped:
            return
        self._tally.heard(worker, "worker_died", {"pid": worker.pid, "status": status})
        await self._lending.spread()
        lived_s = time.monotonic() - worker.started_at
        while self._is_missing(index):
            await asyncio.sleep(self._pace.delay_s(lived_s))
            if await self._tried(worker, "it died while starting"):
                return
            lived_s = 0.0

    def _is_missing(self, index: int) -> bool:
        workers = self._workers
        return not self._lending.stopped and index < workers.count and index not in workers.serving

    async def _tried(self, former: WorkerProcess, cause: str) -> bool:
        """Bring up a successor, and return whether that went well; `cause` is what is said if no more is known."""
        try:
            await self.bring_up(former.index)
        except FAILURES as error:
            self._tally.heard(former, "worker_failed", {"cause": str(error) or cause})
            return False
        return True

    def _heard(self, worker: WorkerProcess, kind: str, fields: dict[str, Any]) -> None:
        self._tally.heard(worker, kind, fields)
        serves = self._workers.serving.get(worker.index) is worker
        if kind == "worker_terminated" and serves and not self._lending.stopped:
            _ = self._workers.begin(self._tried(worker, "its successor died while starting"))

    def let_go(self, worker: WorkerProcess, *, last: bool = False) -> asyncio.Task[None]:
        """Have a worker drain; the task ends when it holds no listening socket any more."""
        worker.life.turn(Turn.STOP, time.time())
        return self._workers.begin(worker.part(last=last))

    async def let_all_go(self, *, last: bool) -> None:
        """Have all workers drain and end, and hold no listening socket and no inbox here either when they do not.

        First they stop handing clients over, so that each can empty its inbox; with `last` nobody else has their sockets,
        and they take who is in the queues. A worker that hangs is not waited for long; it is killed when it has not
        answered for ANSWER_S.
        """
        self._lending.stopped = True
        with contextlib.suppress(TimeoutError):  # one that hangs hands nothing over
            async with asyncio.timeout(PARTING_S):
                await self._workers.ask_all("meet")
        serving, self._workers.serving = self._workers.serving, {}
        parting = [self.let_go(worker, last=last) for worker in serving.values()]
        if parting:
            await asyncio.wait(parting, timeout=PARTING_S)
        await self._lending.close(last=last)

    # -- what operators do with workers ---------------------------------------------------------------

    async def restart(self) -> dict[str, Any]:
        """Replace every worker, one at a time; if a new one does not come up (`Refused`), the rest of the old serve on."""
        self._tally.emit("restart", workers=self._workers.count)
        self.server.retire()
        self.server = ForkServer()  # which loads the code as it is now
        try:
            pids = [(await self.bring_up(index)).pid for index in range(self._workers.count)]
        except FAILURES as error:
            cause = str(error) or "the new worker died while starting"
            self._tally.emit("restart_failed", cause=cause)
            raise Refused(503, "restart_failed", cause) from error
        self._tally.emit("restarted", workers=self._workers.count)
        return {"workers": len(pids), "pids": pids}

    async def resize(self, count: int) -> dict[str, Any]:
        """Change the number of workers.

        More of them get sockets of their own, where the kernel can spread clients over them. Of fewer, those who go
        leave their sockets, which stay open for ever, to the others: closing one would reset who waits in it.

        Raises:
            Refused: It cannot be had. If no further sockets can, nothing has changed; if a worker did not come up,
                there are as many as came up before it.
        """
        most = self._board.rows // 2
        if not 1 <= count <= most:
            raise Refused(422, "invalid", f"count: from 1 to {most}; more need a takeover")
        async with self._resizing:
            before = self._workers.count
            try:
                await self._resize(before, count)
            except FAILURES as error:
                raise Refused(503, "resize_failed", str(error) or "a worker died while starting") from error
            self._tally.emit("resized", workers=count, before=before)
        return {"workers": count}

    async def _resize(self, before: int, count: int) -> None:
        workers = self._workers
        workers.count = count
        try:
            self._lending.sockets.grow()
        except Refused:
            workers.count = before
            raise
        for index in range(before, count):
            try:
                await self.bring_up(index)
            except FAILURES:
                workers.count = index
                await self._lending.spread()  # somebody has to accept from what it would have had
                raise
        leaving = [workers.serving.pop(index) for index in range(count, before) if index in workers.serving]
        await self._lending.spread()
        for worker in leaving:
            _ = self.let_go(worker)
