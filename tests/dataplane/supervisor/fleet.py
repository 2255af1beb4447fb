"""Workers without processes: what they are asked and told is noted, and they die when a test says so."""

from __future__ import annotations

import asyncio
import itertools
import socket
from contextlib import asynccontextmanager

from dataplane.ipc.messages import WorkerSettings
from dataplane.ipc.shared_counters import CounterBoard
from dataplane.supervisor.lending import Lending
from dataplane.supervisor.succession import Succession
from dataplane.supervisor.workers import WorkerProcess, Workers

ADDRESS = "192.0.2.1:80"


class Ended:
    """A process that ends when it is told to."""

    def __init__(self):
        self.returncode = None
        self.ended = asyncio.Event()

    def kill(self, status=-9):
        """End it."""
        self.returncode = status
        self.ended.set()


class Said:
    """A channel on which everything arrives."""

    def __init__(self, note):
        self._note = note

    def send(self, kind, body=None):
        """Note it."""
        self._note(kind, body)


class Sockets:
    """Sockets that nobody listens on (dataplane.supervisor.lending.SocketGroup)."""

    def __init__(self, workers):
        self._workers = workers
        self.refusal = None
        self.closed = None
        self.kept_out = []
        self.finished = 0
        self.sockets = {ADDRESS: [socket.socket()]}
        self.grow()

    def grow(self):
        """Have one for each worker."""
        if self.refusal:
            raise self.refusal
        group = self.sockets[ADDRESS]
        while len(group) < self._workers.count:
            group.append(socket.socket())

    async def keep_out(self, addresses=()):
        """Note who is kept out."""
        self.kept_out.append(sorted(self.sockets.keys() - set(addresses)))

    def finish(self):
        """Note that what was given up is closed."""
        self.finished += 1

    def close(self):
        """Note that they were closed for good."""
        self.leave()
        self.closed = "for good"

    def leave(self):
        """Note that our copies were closed."""
        self.closed = "ours"
        for sock in self.sockets.pop(ADDRESS, ()):
            sock.close()


class Fleet:
    """A supervisor's workers, the applier whose snapshot they run, and the ledger of what they tell."""

    def __init__(self, count):
        self.noted = []
        """Each (index, kind, body) that a worker was asked or told."""
        self.told = []
        """Each (index, kind) that was told of a worker."""
        self.fails = {}
        """By (index, kind): what is raised when a worker is asked."""
        self.lock = asyncio.Lock()
        self.briefed = []
        self.all = []
        """Every worker that was ever started."""
        self._pids = itertools.count(1)
        self.workers = Workers(count)
        self.sockets = Sockets(self.workers)
        self.lending = Lending(self.workers, self.sockets)
        self.board = CounterBoard(8)
        settings = WorkerSettings("x", None, None, "json", affinity=False)
        self.succession = Succession(self.workers, self.lending, self.board, settings, self, self)
        self.succession.make = lambda *args: Worker(self, *args)

    def next_pid(self):
        """Return the number of a process."""
        return next(self._pids)

    async def brief(self, worker):
        """Bring a worker up to date (dataplane.supervisor.apply.WorkerReplicas)."""
        assert self.lock.locked()
        self.briefed.append(worker)

    def heard(self, worker, kind, fields):
        """Note it (dataplane.supervisor.tally.WorkerTally)."""
        self.told.append((worker.index, kind))

    def emit(self, kind, **_fields):
        """Note it."""
        self.told.append((None, kind))

    def ended(self, worker):
        """Note it."""
        self.told.append((worker.index, "ended"))

    def kinds(self, *indexes):
        """Return what these workers were asked and told, in order."""
        return [(index, kind) for index, kind, _ in self.noted if index in indexes]

    def held(self):
        """Return which of the address's sockets each worker holds, by index."""
        return {
            index: sorted(number for address, number in worker.held if address == ADDRESS)
            for index, worker in sorted(self.workers.serving.items())
        }


class Worker(WorkerProcess):
    """One of them."""

    def __init__(self, fleet, index, row, hear):
        super().__init__(index, row, hear)
        self._fleet = fleet
        fleet.all.append(self)

    async def start(self, server, *, affinity):
        """Begin."""
        self._raise("start")
        self.pid = self._fleet.next_pid()
        self.process = Ended()
        self.channel = Said(self._note)

    async def run(self, on_lost):
        """Live until it is ended."""
        await self.process.ended.wait()
        return self.process.returncode

    async def ask(self, kind, body=None, fds=()):
        """Note it, and answer unless the test has it fail."""
        await asyncio.sleep(0)
        self._note(kind, body)
        self._raise(kind)
        return self.pid, []

    def _note(self, kind, body):
        self._fleet.noted.append((self.index, kind, body))

    def _raise(self, kind):
        if error := self._fleet.fails.get((self.index, kind)):
            raise error


async def settled():
    """Let everything happen that needs no time."""
    for _ in range(200):
        await asyncio.sleep(0)


@asynccontextmanager
async def fleet(count=2, *, started=True):
    """Have workers for a block."""
    made = Fleet(count)
    async with asyncio.TaskGroup() as group:
        own = group.create_task(made.workers.run())
        await asyncio.sleep(0)
        try:
            if started:
                await made.succession.start()
                await settled()
                made.noted.clear()
                made.told.clear()
            yield made
        finally:
            own.cancel()
            await asyncio.wait([own])
            await made.lending.close(last=False)
            made.board.close()
