"""A worker's listening sockets, which are the supervisor's: taken, dropped, left."""

from __future__ import annotations

import socket

from dataplane.ipc.shared_counters import CounterBoard
from tests.dataplane.worker.test_node import Worker
from tests.support.checked import backend

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
        worker.reactor.handlers[number] = handler
        worker._listeners.leave_all()
        assert worker.reactor.handlers.pop(number) is handler
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
