"""A worker's node: whose pools it looks after, where they count, and what it leaves when it drains."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from dataplane.ipc.messages import Columns
from dataplane.ipc.shared_counters import EVENTS, HELD, WANTED, Board, CounterBoard
from dataplane.net.reactor import Reactor
from dataplane.node.change import Changer
from dataplane.node.specs import service_spec
from dataplane.telemetry.events import Events
from dataplane.worker import node
from dataplane.worker.node import LentListeners, WorkerNode
from dataplane.worker.pool import WorkerShare
from dataplane.worker.shared import SharedBackend
from schemas.snapshot import parse_snapshot
from tests.dataplane.net.descriptors import adopted
from tests.support.checked import backend, saying

DEADLINE_S = 10


class Worker:
    """A worker's node on the running loop, and as much of a supervisor as it needs."""

    def __init__(self, board: CounterBoard) -> None:
        self.board = board
        row = board.take_row()
        assert row is not None
        self.row = row
        self.reactor = Reactor(asyncio.get_running_loop(), 1024)
        events = Events(lambda kind, **fields: None, time.time)
        self.node = WorkerNode(self.reactor, events, Random(1), Board(board, row))
        self._listeners = LentListeners(self.node)
        self._changer = Changer(self.node)

    async def run(self, address: str, **services: int | tuple[str, ...]) -> None:
        """Run services, each with so many backends or with these, all of them at one address."""
        options: dict[str, Any] = {
            "pool": {"mode": "preconnect", "min_idle": 1, "max_idle": 4},
            "health": {"active": {"type": "none"}},
        }
        body = {
            name: {
                "listen": f"127.0.0.1:{number}",
                "backends": [{"id": one, "address": address} for one in _ids(wanted)],
                **options,
            }
            for number, (name, wanted) in enumerate(services.items(), 1)
        }
        snapshot = parse_snapshot({"version": 1, "generation": 1, "services": body})
        specs = [service_spec(name, service) for name, service in snapshot.services.items()]
        keys: set[object] = {spec.name for spec in specs}
        keys |= {(spec.name, one.id) for spec in specs for one in spec.backends}
        self.node.columns = columns = dict(self.board.assign(keys))
        draft = await self._changer.prepare(specs)
        await self._changer.make(draft)
        await self._changer.swap(draft, self._listeners)
        self.node.count_in(columns)

    def backends(self, service: str) -> list[SharedBackend]:
        """Return the backends of a service."""
        found = self.node.running[service].service.backends.values()
        return [one for one in found if isinstance(one, SharedBackend)]

    def cells(self, kind: int, service: str) -> list[int]:
        """Return what everybody sees of this worker's pools."""
        columns = self.node.columns
        return [self.board.part(kind, columns[service, one.id])[self.row] for one in self.backends(service)]

    async def until(self, holds: Callable[[], object]) -> None:
        """Let the loop run until `holds()`."""
        async with asyncio.timeout(DEADLINE_S):
            while not holds():  # noqa: ASYNC110 - asked in each turn of the loop, which is the worker's as well
                await asyncio.sleep(0)


def _ids(wanted: int | tuple[str, ...]) -> tuple[str, ...]:
    return wanted if isinstance(wanted, tuple) else tuple(f"b{number}" for number in range(wanted))


@asynccontextmanager
async def working() -> AsyncIterator[tuple[Worker, str]]:
    """Run a worker, and a backend whose address comes along; end everything that they have."""
    board = CounterBoard(4)
    async with backend(saying(b"hello")) as server:
        worker = Worker(board)
        worker.reactor.start()
        worker.node.start_refreshing()
        yield worker, server.address
        await worker.run(server.address)
        worker.reactor.close()
    board.close()


async def test_pools_count_from_their_first_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new backend's pool dials where the other workers see it, also before the change is over."""
    async with working() as (worker, address):
        count_in, seen = worker.node.count_in, []

        def look_first(columns: Columns) -> None:
            seen.append(worker.cells(HELD, "s"))
            count_in(columns)

        with monkeypatch.context() as patch:
            patch.setattr(worker.node, "count_in", look_first)
            await worker.run(address, s=2)
        assert seen == [[1, 1]]


async def test_pools_are_looked_after_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, the others get to know of the clients of each."""
    monkeypatch.setattr(node, "POOLS_REFRESHED", 2)
    async with working() as (worker, address):
        await worker.run(address, s=3, t=2)
        for one in [*worker.backends("s"), *worker.backends("t")]:
            for _ in range(5):
                one.pool.goal.demand.arrived(worker.reactor.now)
        await worker.until(
            lambda: worker.cells(EVENTS, "s") == [5, 5, 5] and worker.cells(EVENTS, "t") == [5, 5]
        )


async def test_a_renamed_backend_is_counted_under_its_new_id() -> None:
    """A worker's connections move to the new id's column; those of a sibling that has not changed yet stay where they are."""
    async with working() as (worker, _), backend(saying(b"hello")) as server:
        await worker.run(server.address, s=("old",))
        old = worker.board.column(worker.node.columns["s", "old"])
        sibling = worker.board.take_row()
        assert sibling is not None
        old[sibling] = 5
        service = worker.node.running["s"].service
        client, ours = socket.socketpair()
        with client:
            service.accepted(adopted(ours), None)
            await worker.until(lambda: [flow for flow in service.flows if flow.server])
            (before,) = worker.backends("s")
            assert (before.active, old[worker.row]) == (6, 1)
            await worker.run(server.address, s=("new",))
            (after,) = worker.backends("s")
            new = worker.board.column(worker.node.columns["s", "new"])
            assert (after.id, after.own, new[worker.row]) == ("new", 1, 1)
            assert (old[worker.row], old[sibling]) == (0, 5)
            assert service.leaving == []
            old[sibling], new[sibling] = 0, 5
            assert after.active == 6
        await worker.until(lambda: not service.flows)
        assert new[worker.row] == 0
        new[sibling] = 0
        worker.board.free_row(sibling)
        await worker.run(server.address)
        host, _, port = server.address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        await reader.readexactly(5)  # whoever connected before has been accepted by now
        writer.close()
        await worker.until(lambda: server.ends.qsize() == server.accepted)


async def test_a_service_that_goes_says_nothing_of_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker takes clients until it drains itself, also while pools of a removed service wait for their turn."""
    monkeypatch.setattr(node, "POOLS_REFRESHED", 1)
    async with working() as (worker, address):
        await worker.run(address, s=5, t=1)
        await worker.until(lambda: len(worker.node._pools) == 5)
        await worker.run(address, t=1)
        await worker.until(lambda: len(worker.node._pools) == 1)
        assert worker.board.present[worker.row] == 1


async def test_a_bug_of_one_pool_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What looking after one pool raises does not end the looking: the next time comes."""
    async with working() as (worker, address):
        await worker.run(address, s=1)
        looks = 0

        def fail() -> None:
            nonlocal looks
            looks += 1
            raise RuntimeError("a bug")

        reported = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: reported.append(context["exception"])
        )
        with monkeypatch.context() as patch:
            patch.setattr(WorkerShare, "refresh", lambda *_: fail())
            await worker.until(lambda: looks >= 3)
        assert {str(each) for each in reported} == {"a bug"}


async def test_whoever_asks_a_balancer_is_told_all_the_same() -> None:
    """A count that somebody has looked at in between has moved for the balancer, once."""
    async with working() as (worker, address):
        await worker.run(address, s=1)
        (one,) = worker.backends("s")
        column = worker.board.column(worker.node.columns["s", one.id])
        other = (worker.row + 1) % worker.board.rows
        assert one.has_moved() is False
        worker.board.head[0] = worker.board.rows
        column[other] = 40
        assert one.active == 40
        assert [one.has_moved() for _ in range(2)] == [True, False]
        column[other] = 0


async def test_a_worker_that_drains_leaves_its_pools_to_the_others() -> None:
    """What it holds is closed, its part of `min_idle` is theirs, and it has no claim to anything."""
    async with working() as (worker, address):
        await worker.run(address, s=2)
        await worker.until(lambda: worker.cells(HELD, "s") == [1, 1])
        assert worker.board.present[worker.row] == 1
        await worker.node.drain()
        await worker.until(lambda: worker.cells(HELD, "s") == [0, 0])
        assert worker.board.present[worker.row] == 0
        assert worker.cells(EVENTS, "s") == worker.cells(WANTED, "s") == [0, 0]


ADDRESS = "127.0.0.1:1"
"""What `Worker.run` configures for its first service."""


async def test_leaving_a_socket_twice_takes_nothing_from_whoever_has_its_number() -> None:
    """An orphan leaves its listeners when somebody takes over, and again when it drains."""
    worker = Worker(CounterBoard(2))
    async with backend() as it:
        await worker.run(it.address, web=1)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            number = listening.fileno()
            worker._listeners.take([("127.0.0.1:1", 0)], [listening.detach()])
        worker._listeners.leave_all()
        reused = socket.socket()
        assert reused.fileno() == number, "the kernel gives the lowest number that is free"
        handler = next(iter(worker.node.listeners.values()))
        worker.reactor.handlers.put(number, handler)
        worker._listeners.leave_all()
        assert worker.reactor.handlers.get(number) is handler
        reused.close()


async def test_the_total_of_an_address_never_falls() -> None:
    """Of two sockets of one address one is dropped: what it has accepted counts at the other; the last one takes it along."""
    worker = Worker(CounterBoard(2))
    async with backend() as it:
        await worker.run(it.address, web=1)
        lent, listeners = worker._listeners, worker.node.listeners
        socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        lent.take([(ADDRESS, number) for number in range(2)], [sock.detach() for sock in socks])
        for number, listener in enumerate(listeners.values(), 3):
            listener.accepted = number
        lent.drop([(ADDRESS, 0)])
        assert [listener.accepted for listener in listeners.values()] == [7]
        lent.drop([(ADDRESS, 1), (ADDRESS, 9)])
        assert listeners == {}


async def test_a_socket_of_an_address_that_went_is_closed() -> None:
    """It comes late, after the change that removed its address: nobody would serve its clients."""
    worker = Worker(CounterBoard(2))
    async with backend() as it:
        await worker.run(it.address, web=1)
        sock = socket.create_server(("127.0.0.1", 0))
        port = sock.getsockname()
        worker._listeners.take([("127.0.0.1:99", 0)], [sock.detach()])
        assert worker.node.listeners == {}
        with socket.socket() as client:
            assert client.connect_ex(port) != 0
