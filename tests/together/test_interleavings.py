"""Limits that several workers share, in every interleaving: another worker may change its counts before each read.

One worker is real, with a backend behind a Unix socket. The other is its row of the shared counters, and writes
there what Hypothesis says whenever the first one looks.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain, repeat
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.reasons import CloseReason
from dataplane.core.selection import Selection
from dataplane.core.spec import Mode
from dataplane.ipc.shared_counters import WAITING, Board, CounterBoard
from dataplane.net.reactor import Reactor
from dataplane.worker.client_handoff import Siblings
from dataplane.worker.shared import SharedBackend, SharedService
from tests.dataplane.net.descriptors import adopted
from tests.dataplane.net.rig import spec

PER_BACKEND = 2
CONNECTIONS = 4
QUEUE = 6


class _Cells:
    """Cells of shared memory, into which another worker writes before each read."""

    def __init__(self, cells: memoryview, other: Iterator[int]) -> None:
        self._cells = cells
        self._other = other

    def __getitem__(self, where: slice) -> list[int]:
        self._cells[1] = next(self._other)
        return list(self._cells[where])

    def __setitem__(self, row: int, value: int) -> None:
        self._cells[row] = value


class _Board(Board):
    """Shared memory that changes under its reader's eyes, until the other worker is `still`."""

    def __init__(self, counters: CounterBoard, counts: list[int], others_queue: list[int]) -> None:
        super().__init__(counters, 0)
        self.still = False
        self._counts = chain.from_iterable(repeat(counts))
        self._others_queue = chain.from_iterable(repeat(others_queue))

    def _until_still(self, values: Iterator[int]) -> Iterator[int]:
        while True:
            yield 0 if self.still else next(values)

    def cells(self, column: int | None) -> Any:
        """Return cells that the other worker counts in, too."""
        return _Cells(super().cells(column), self._until_still(self._counts))

    def part(self, kind: int, column: int | None) -> Any:
        """Return the cells of who waits, where the other worker's clients come and go, too."""
        cells = super().part(kind, None)
        return _Cells(cells, self._until_still(self._others_queue)) if kind == WAITING else cells


class _Nobody:
    """Is told what the service meets: in these tests, nothing but ends."""

    def __getattr__(self, name: str) -> Any:
        assert name == "drained", name
        return lambda *_: None


class Site:
    """One real worker with its service, and clients."""

    def __init__(self, stack: ExitStack, mode: Mode, counts: list[int], others_queue: list[int]) -> None:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "b"
        self._listeners = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        backends = []
        for number, listener in enumerate(self._listeners):
            stack.enter_context(listener)
            listener.bind(f"{path}{number}")
            listener.listen(64)
            backends.append({"id": str(number), "address": f"unix:{path}{number}"})
        counters = CounterBoard(2)
        stack.callback(counters.close)
        counters.take_row()
        counters.take_row()
        self.board = _Board(counters, counts, others_queue)
        reactor = Reactor(SimpleNamespace(), 4096)  # type: ignore[arg-type]
        stack.callback(reactor.epoll.close)
        limits = {"per_backend": PER_BACKEND, "connections": CONNECTIONS, "queue": QUEUE}
        wanted = spec(mode=mode.value, limits=limits, backends=backends)
        self.service = SharedService(reactor, wanted, _Nobody(), self.board, Siblings())
        self.service.use(0)
        self.ended: list[CloseReason] = []
        self.service.access_log = lambda flow, reason, server: self.ended.append(reason)
        for number, one in enumerate(wanted.backends):
            self.service.backends[one.id] = SharedBackend(reactor, one, wanted, self.board, number + 1)
        self.service.selection = Selection.build(
            [backend.stand(1.0) for backend in self.service.backends.values()],
            mode=mode,
            panic=0.0,
            random=Random(1).random,
            tables={},
            previous=None,
        )
        self._stack = stack
        self.clients: list[socket.socket] = []
        stack.callback(self.end_all)

    def come(self) -> None:
        """Let a client come."""
        near, far = socket.socketpair()
        self._stack.enter_context(far)
        self.service.accepted(adopted(near), None)

    def leave(self) -> None:
        """Let the oldest client that is served go, which gives its place to who waits."""
        for flow in self.service.flows:
            if flow.server is not None:
                flow.end(CloseReason.CLIENT_CLOSED)
                return

    def end_all(self) -> None:
        """End everybody, those who wait first."""
        self.board.still = True
        for flow in sorted(self.service.flows, key=lambda flow: flow.server is not None):
            flow.end(CloseReason.SHUTDOWN)


@given(
    mode=st.sampled_from([Mode.RR, Mode.LEASTCONN, Mode.P2C, Mode.STICKY]),
    counts=st.lists(st.integers(0, PER_BACKEND), min_size=1, max_size=50),
    others_queue=st.lists(st.integers(0, 1), min_size=1, max_size=10),
    steps=st.lists(st.sampled_from(["come", "come", "leave", "look"]), max_size=12),
)
@settings(deadline=None, max_examples=200)
def test_no_client_is_lost_to_a_stale_look(
    mode: Mode, counts: list[int], others_queue: list[int], steps: list[str]
) -> None:
    """While a backend is up and the queue has room, clients are served or wait, and all are served in the end."""
    with ExitStack() as stack:
        site = Site(stack, mode, counts, others_queue)
        service = site.service
        left = 0
        for step in steps:
            if step == "come" and len(service.queue) + max(others_queue) < QUEUE:
                site.come()
            elif step == "leave":
                left += any(flow.server is not None for flow in service.flows)
                site.leave()
            else:
                service.serve_queue()  # as every worker does twenty times a second
            assert site.ended == [CloseReason.CLIENT_CLOSED] * left
        site.board.still = True
        while service.queue:
            before = len(service.queue)
            service.serve_queue()
            site.leave()
            assert len(service.queue) < before, "a place came free, and nobody was woken for it"
            left += 1
        assert site.ended == [CloseReason.CLIENT_CLOSED] * left


@given(counts=st.lists(st.integers(0, PER_BACKEND), min_size=1, max_size=50))
@settings(deadline=None, max_examples=100)
def test_who_waits_keeps_its_turn(counts: list[int]) -> None:
    """A place that another worker takes first costs nobody the place in the queue, nor the time waited so far."""
    with ExitStack() as stack:
        site = Site(stack, Mode.RR, counts, [0])
        while len(site.service.queue) < 3 and len(site.service.flows) < CONNECTIONS + 3:
            site.come()
        waiting = [flow for flow in site.service.flows if flow.server is None]
        waiting.sort(key=lambda flow: list(site.service.queue._waiting).index(flow))
        since = [flow.last for flow in waiting]
        site.service.reactor.now += 1.0
        site.service.serve_queue()
        left = list(site.service.queue._waiting)
        assert left == waiting[len(waiting) - len(left) :]
        assert [flow.last for flow in left] == since[len(waiting) - len(left) :]
