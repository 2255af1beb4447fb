"""The pools of several workers for one backend, in one thread: the test says who does what, and when.

The backend is a Unix socket, so a dial is over at once, and nothing happens between two calls.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dataplane.ipc.shared_counters import Board, CounterBoard
from dataplane.net.calls import close
from dataplane.net.leg import Leg
from dataplane.net.reactor import Reactor
from dataplane.worker.shared import SharedBackend
from tests.dataplane.net.descriptors import adopted
from tests.dataplane.net.rig import count, spec
from tests.support.clock import FakeClock

KEY = ("s", "b")
LOOK_S = 0.05
_NO_FLOW: Any = None


class _Reactor(Reactor):
    """A reactor in whose midst something else may happen."""

    meanwhile: Callable[[], None] | None = None

    def _happen(self) -> None:
        what, self.meanwhile = self.meanwhile, None
        if what is not None:
            what()

    def clock(self) -> float:
        """Return the time; a pool asks for it before each dial."""
        self._happen()
        return super().clock()

    def watch(self, fd: int, handler: Any, events: int) -> None:
        """Watch; a pool does before it says what it holds."""
        self._happen()
        super().watch(fd, handler, events)


class Worker:
    """One worker's end of the backend, and its clients."""

    def __init__(
        self, reactor: Reactor, board: Board, column: int | None, ends: list[socket.socket], **options: Any
    ) -> None:
        self.board = board
        self._reactor = reactor
        self._ends = ends
        self.service = spec(**options)
        self.backend = SharedBackend(reactor, self.service.backends[0], self.service, board, column)
        self.pool = self.backend.pool
        self.share = self.backend.share
        self.clients: list[Leg] = []
        board.set_present(present=True)

    def come(self) -> bool:
        """Serve a client; tell whether it got a pooled connection."""
        count(self.backend, 1)
        idle = self.pool.take()
        if idle is not None:
            fd = idle.fd
        else:
            near, far = socket.socketpair()
            far.setblocking(False)
            self._ends.append(far)
            fd = adopted(near)
        self.clients.append(Leg(_NO_FLOW, fd, is_backend=True))
        self.pool.refiller.refill()
        return idle is not None

    def leave(self) -> None:
        """Let a client leave, in mode `reuse` cleanly."""
        leg = self.clients.pop()
        count(self.backend, -1)
        self._reactor.unwatch(leg.fd)
        self.pool.put(leg, self._reactor.now, self.pool.backend.address)

    def refresh(self) -> None:
        """Look at what the others do."""
        self.share.refresh(self.pool)

    def configure(self, **options: Any) -> None:
        """Take new options."""
        wanted = spec(**options)
        self.backend.configure(wanted.backends[0], wanted, self._reactor.now)


class Pools:
    """A board, a backend, and workers."""

    def __init__(self, clock: FakeClock, directory: Path, **options: Any) -> None:
        self._clock = clock
        self._directory = directory
        self.board = CounterBoard(8)
        self.reactor = _Reactor(SimpleNamespace(), 65536, clock)  # type: ignore[arg-type]
        path = directory / "b"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(4096)
        self.options = {"backends": [{"id": "b", "address": f"unix:{path}"}], **options}
        self.workers: list[Worker] = []
        self._listener.setblocking(False)
        self._ends: list[socket.socket] = []
        """The backend's ends of connections."""

    def join(self) -> Worker:
        """Add a worker."""
        row = self.board.take_row()
        assert row is not None
        column = dict(self.board.assign({KEY}))[KEY]
        worker = Worker(self.reactor, Board(self.board, row), column, self._ends, **self.options)
        self.workers.append(worker)
        return worker

    def look(self) -> None:
        """Have each worker look once at what the others do, and then let the time pass until the next time."""
        for worker in self.workers:
            worker.refresh()
        self._clock.advance(LOOK_S)
        self.reactor.clock()
        self.reactor.wheel.advance(self.reactor.now)

        self._accept()

    def _accept(self) -> None:
        """Take the backend's ends of new connections, and close those of old ones."""
        with contextlib.suppress(BlockingIOError):
            while True:
                end = self._listener.accept()[0]
                end.setblocking(False)
                self._ends.append(end)
        for end in list(self._ends):
            with contextlib.suppress(BlockingIOError):
                end.recv(1)
                end.close()
                self._ends.remove(end)

    def pass_time(self, seconds: float) -> None:
        """Have them look for so long."""
        for _ in range(round(seconds / LOOK_S)):
            self.look()

    @property
    def held(self) -> list[int]:
        """What each holds; the others see just this."""
        held = [worker.pool.own for worker in self.workers]
        rows = [worker.board.row for worker in self.workers]
        cells = self.workers[0].share._held
        assert [cells[row] for row in rows] == held
        return held

    def close(self) -> None:
        """Close everything."""
        for worker in self.workers:
            worker.share.retire(worker.pool)
            for leg in worker.clients:
                close(leg.fd)
        self._accept()
        for end in self._ends:
            end.close()
        self._listener.close()
        self.reactor.epoll.close()
        self.board.close()


@contextlib.contextmanager
def pools(workers: int = 2, limits: Any = None, **pool: Any) -> Iterator[Pools]:
    """Run workers with a pool of which nothing grows old by itself."""
    clock = FakeClock()
    options = {"idle_timeout": "0s", "max_age": "0s", **pool}
    with tempfile.TemporaryDirectory(prefix="lb-test-") as directory:
        site = Pools(clock, Path(directory), pool=options, limits=limits or {})
        try:
            for _ in range(workers):
                site.join()
            yield site
        finally:
            site.close()
