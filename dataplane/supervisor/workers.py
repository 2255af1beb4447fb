"""A supervisor's workers: started, brought up to date, replaced one by one or when they die.

Theory of operation:

1. A worker is brought up in order: welcome, the snapshot that runs, what is known of health, its listening sockets.
   Only then does it count as being there, and only then does its predecessor, if it has one, begin to drain.
2. When a worker dies, the sockets that it alone accepted from are lent to those who are there (`SocketGroup.shares`),
   at once: their queues have lost nobody. Its successor gets them back.
3. Successors are started at once, or after a delay that doubles while workers die young.
4. `spread` makes what is lent what should be: it lends everything new before it takes anything back, so that each
   socket has somebody at every moment. Then workers are told of each other, for those who hand clients over
   (`worker.client_handoff`); inboxes are lent as listening sockets are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from dataplane.background import together
from dataplane.errors import PeerError, PeerGone, Refused
from dataplane.ipc.channel import Channel
from dataplane.ipc.messages import INBOX, Welcome, WorkerSettings
from dataplane.supervisor.inboxes import Inboxes
from dataplane.supervisor.listening_sockets import SocketGroup, shares
from dataplane.supervisor.worker_process import WorkerProcess

if TYPE_CHECKING:
    from dataplane.ipc.shared_counters import CounterBoard

__all__ = ["Owner", "WorkerSettings", "Workers"]

YOUNG_S: Final = 2.0
"""A worker that dies within this time is not replaced at once."""
FIRST_DELAY_S: Final = 0.1
MAX_DELAY_S: Final = 5.0
_ROOT: Final = str(Path(__file__).resolve().parents[2])
"""Where this program is, so that a worker is the same one whatever the working directory holds."""
PARTING_S: Final = 1.0


class Owner(Protocol):
    """Whose workers they are."""

    @property
    def lock(self) -> asyncio.Lock:
        """Held while what runs is changed."""

    async def brief(self, member: WorkerProcess) -> None:
        """Bring a new worker up to date: what runs, and what is known of health."""

    def heard(self, member: WorkerProcess, kind: str, fields: dict[str, Any]) -> None:
        """Take note of something that happened in a worker, or to it."""

    def ended(self, member: WorkerProcess) -> None:
        """Take note that a worker's process has ended; its last numbers are in it."""


class Workers:
    """All workers.

    Args:
        count: How many there should be.
        settings: What they are started with.
        sockets: What they accept from.
        board: Where they count.
        owner: Whose they are.
    """

    def __init__(
        self, count: int, settings: WorkerSettings, sockets: SocketGroup, board: CounterBoard, owner: Owner
    ) -> None:
        self.count = count
        self.members: dict[int, WorkerProcess] = {}
        """Those who accept, by index."""
        self.leaving: set[WorkerProcess] = set()
        """Those who drain."""
        self._settings = settings
        self._sockets = sockets
        self._board = board
        self._owner = owner
        self._inboxes = Inboxes()
        self._spreading = asyncio.Lock()
        self._group: asyncio.TaskGroup | None = None
        self._young_deaths = 0
        self._ending = False
        self._empty = asyncio.Event()
        self._alive: set[WorkerProcess] = set()

    async def run(self) -> None:
        """Own the tasks that watch the workers, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await asyncio.Event().wait()

    async def start(self) -> None:
        """Bring all workers up.

        Raises:
            PeerGone: One died before it was there.
            PeerError: One could not run what it should.
        """
        for outcome in await together(self.bring_up(index) for index in range(self.count)):
            if isinstance(outcome, Exception):
                raise outcome

    async def bring_up(self, index: int) -> WorkerProcess:
        """Start a worker and return it when it accepts; whoever was in its place drains.

        Raises:
            PeerGone: It died before it was there.
            PeerError: It could not run what it should.
        """
        self._inboxes.grow(index + 1)
        member = await self._spawn(index)
        try:
            async with self._owner.lock:  # no change may pass by a worker that is not among the members yet
                await self._owner.brief(member)
                self._refuse_late()
                await self._lend(member, self._wanted({**self.members, index: member})[index])
                self._refuse_late()
                predecessor = self.members.get(index)
                self.members[index] = member
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                member.process.kill()
            raise
        if predecessor is not None:
            _ = self._let_go(predecessor)
        await self.spread()
        self._owner.heard(member, "worker_ready", {"pid": member.pid})
        return member

    def _refuse_late(self) -> None:
        if self._ending:
            raise PeerGone  # nobody would tell a worker to drain that comes now

    async def _spawn(self, index: int) -> WorkerProcess:
        row = self._board.take_row()
        if row is None:
            raise PeerError("too many former workers are still draining")
        member = WorkerProcess(index, row, self._heard)
        ours, theirs = socket.socketpair()
        with theirs:
            path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
            member.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "dataplane.start",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": path},
            )
        member.pid = member.process.pid
        member.channel = Channel(ours, member)
        self._alive.add(member)
        self._empty.clear()
        assert self._group is not None  # noqa: S101 - run() has begun
        self._group.create_task(self._watch(member))
        if self._settings.affinity:
            cores = sorted(os.sched_getaffinity(0))
            with contextlib.suppress(OSError):
                os.sched_setaffinity(member.pid, {cores[index % len(cores)]})
        welcome = Welcome(index, row, self._board.rows, self._settings)
        await member.ask("welcome", welcome, [self._board.fd])
        return member

    # -- listening sockets ----------------------------------------------------------------------------

    def _wanted(self, members: dict[int, WorkerProcess]) -> dict[int, set[tuple[str, int]]]:
        wanted: dict[int, set[tuple[str, int]]] = {index: set() for index in members}
        workers = max(self.count, max(members, default=0) + 1)
        counts = {address: len(group) for address, group in self._sockets.sockets.items()}
        for address, count in {**counts, INBOX: len(self._inboxes)}.items():
            for index, held in shares(count, members, workers).items():
                wanted[index] |= {(address, number) for number in held}
        return wanted

    async def spread(self) -> None:
        """Make each worker hold what it should, in the order of rule 4."""
        async with self._spreading:
            if self._ending:
                return  # there is nothing left to lend
            wanted = self._wanted(self.members)
            members = dict(self.members)
            for member in members.values():
                member.held = {
                    one for one in member.held if one[0] in self._sockets.sockets or one[0] == INBOX
                }
            results = await together(
                self._lend(one, wanted[index] - one.held) for index, one in members.items()
            )
            for member, result in zip(members.values(), results, strict=True):
                if isinstance(result, PeerError):
                    member.kill(f"it could not take a socket: {result}")
                elif isinstance(result, Exception) and not isinstance(result, PeerGone):
                    raise result
            for index, member in members.items():
                surplus = member.held - wanted[index]
                if surplus:
                    member.channel.send("drop", sorted(surplus))
                    member.held -= surplus
            assert self._group is not None  # noqa: S101 - run() has begun
            self._inboxes.introduce(members.values(), self._group)

    async def _lend(self, member: WorkerProcess, sockets: set[tuple[str, int]]) -> None:
        chosen = sorted(sockets)
        if chosen:
            fds = [
                self._inboxes.reader(number)
                if address == INBOX
                else self._sockets.sockets[address][number].fileno()
                for address, number in chosen
            ]
            await member.ask("listen", chosen, fds)
            member.held |= sockets

    # -- ends and beginnings --------------------------------------------------------------------------

    def _heard(self, member: WorkerProcess, kind: str, fields: dict[str, Any]) -> None:
        self._owner.heard(member, kind, fields)
        if kind == "worker_terminated" and self._group is not None:
            self._group.create_task(self._relieve(member))

    async def _relieve(self, member: WorkerProcess) -> None:
        """Replace a worker that was told to end; if that cannot be, it stays."""
        if self.members.get(member.index) is member and not self._ending:
            try:
                await self.bring_up(member.index)
            except (PeerGone, PeerError, OSError) as error:
                cause = str(error) or "its successor died while starting"
                self._owner.heard(member, "worker_failed", {"cause": cause})

    def _let_go(self, member: WorkerProcess, *, last: bool = False) -> asyncio.Task[None]:
        """Have a worker drain; the task ends when it holds no listening socket any more."""
        member.leaving = True
        self.leaving.add(member)
        assert self._group is not None  # noqa: S101 - run() has begun
        return self._group.create_task(member.part(last=last))

    async def _watch(self, member: WorkerProcess) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(member.channel.run())
            ended = group.create_task(member.process.wait())
            closed = group.create_task(member.channel.closed.wait())
            await asyncio.wait({ended, closed}, return_when=asyncio.FIRST_COMPLETED)
            # the other follows: what it said last may still be in the socket; and a process ends after its descriptors
            await asyncio.wait({ended, closed}, timeout=PARTING_S)
            member.channel.close()
            if not ended.done():
                # It could not take what it was sent (out of descriptors), and takes itself for an orphan: it drains.
                assert self._group is not None  # noqa: S101 - run() has begun
                self._group.create_task(self._succeed(member, {"pid": member.pid, "status": "lost"}))
            code = await ended
        self._alive.discard(member)
        self.leaving.discard(member)
        self._board.free_row(member.row)
        self._owner.ended(member)
        if not self._alive:
            self._empty.set()
        await self._succeed(member, {"pid": member.pid, "status": code})

    async def _succeed(self, member: WorkerProcess, end: dict[str, Any]) -> None:
        """Have siblings and a successor take the place of a worker, if it has not been filled yet."""
        if self.members.get(member.index) is not member:
            return
        del self.members[member.index]
        if not self._ending:
            self._owner.heard(member, "worker_died", end)
            await self.spread()
            await self._replace(member)

    async def _replace(self, dead: WorkerProcess) -> None:
        lived_s = time.monotonic() - dead.started_at
        while not self._ending and dead.index < self.count and dead.index not in self.members:
            if lived_s < YOUNG_S:
                self._young_deaths += 1
                await asyncio.sleep(min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** min(10, self._young_deaths - 1)))
            else:
                self._young_deaths = 0
            try:
                await self.bring_up(dead.index)
            except (PeerGone, PeerError, OSError) as error:
                self._owner.heard(dead, "worker_failed", {"cause": str(error) or "it died while starting"})
                lived_s = 0.0

    async def restart(self) -> list[int]:
        """Replace every worker, one at a time; return the new pids.

        Raises:
            PeerGone: A new one died; its predecessor serves on, and so do those that were not replaced yet.
            PeerError: A new one could not run what it should; the same.
        """
        return [(await self.bring_up(index)).pid for index in range(self.count)]

    async def resize(self, count: int) -> None:
        """Change how many workers there are.

        More of them get sockets of their own, where the kernel can spread clients over them. Of fewer, those who go
        leave their sockets, which stay open for ever, to the others: closing one would reset who waits in it.

        Raises:
            Refused: 503, no further sockets can be had; nothing has changed.
            PeerGone: A new worker died; there are as many as came up before it.
            PeerError: A new worker could not run what it should; the same.
        """
        before, self.count = self.count, count
        try:
            self._sockets.grow()
        except Refused:
            self.count = before
            raise
        for index in range(before, count):
            try:
                await self.bring_up(index)
            except (PeerGone, PeerError, OSError):
                self.count = index
                await self.spread()  # somebody has to accept from what it would have had
                raise
        leaving = [self.members.pop(index) for index in range(count, before) if index in self.members]
        await self.spread()
        for member in leaving:
            _ = self._let_go(member)

    async def let_all_go(self, *, last: bool) -> None:
        """Have all workers drain and end, and hold no listening socket and no inbox here either when they do not.

        First they stop handing clients over, so that each can empty its inbox. A worker that hangs is not waited for
        long; it is killed when it has not answered for ANSWER_S.

        Args:
            last: Nobody else has their sockets: they take who is in the queues first.
        """
        self._ending = self._inboxes.closed = True
        with contextlib.suppress(TimeoutError):  # one that hangs hands nothing over
            async with asyncio.timeout(PARTING_S):
                await self.ask_all("meet")
        members, self.members = self.members, {}
        parting = [self._let_go(member, last=last) for member in members.values()]
        if parting:
            await asyncio.wait(parting, timeout=PARTING_S)
        async with self._spreading:  # what is being lent stays open until it has arrived
            if last:
                self._sockets.close()
            else:
                self._sockets.leave()
            self._inboxes.close()

    def kill_all(self) -> None:
        """End all workers now."""
        self._ending = True
        for member in self._alive:
            with contextlib.suppress(ProcessLookupError):
                member.process.kill()

    async def wait_empty(self) -> None:
        """Wait until the last worker has ended."""
        if self._alive:
            await self._empty.wait()

    async def ask_all(
        self, kind: str, body: Any = None, *, former: bool = False
    ) -> list[tuple[WorkerProcess, Any, list[Any]]]:
        """Ask every worker; those that die meanwhile are left out.

        Raises:
            PeerError: One could not.
        """
        members = [*self.members.values(), *(self.leaving if former else ())]
        results = await together(one.ask(kind, body) for one in members)
        answers = []
        for member, result in zip(members, results, strict=True):
            if isinstance(result, PeerGone):
                continue
            if isinstance(result, Exception):
                raise result
            answers.append((member, *result))
        return answers

    def reopen(self) -> None:
        """Have the access log opened anew by everybody who writes to it, those who drain or begin included."""
        for member in self._alive:
            member.channel.send("reopen", None)

    def tell_all(self, kind: str, body: Any = None) -> None:
        """Tell every worker."""
        for member in self.members.values():
            member.channel.send(kind, body)
