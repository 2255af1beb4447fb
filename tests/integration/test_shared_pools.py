"""A supervisor with two workers: pools and queues are the node's, and a pool goes where the clients are.

The clients come through a Unix socket, which has one queue for all workers: while one of them is stopped, the
other meets everybody.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.support.backends import LineServer
from tests.support.dataplane import DataPlane
from tests.support.wait import wait_for

SIZE = 8
REUSE = {"mode": "reuse", "max_idle": SIZE, "idle_timeout": "0s", "max_age": "0s"}


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process, and return when it has stopped."""
    os.kill(pid, signal.SIGSTOP)
    try:
        state = Path(f"/proc/{pid}/stat")
        wait_for(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", "the process to stop")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class Site:
    """A data plane of two workers with one service and one backend."""

    def __init__(self, stack: ExitStack, **options: Any) -> None:
        self._stack = stack
        self.plane = stack.enter_context(DataPlane(["--workers", "2"]))
        self.backend = stack.enter_context(LineServer("a"))
        self.path = self.plane.directory / "in"
        self.plane.put_snapshot(
            {
                "web": {
                    "listen": f"unix:{self.path}",
                    "backends": [{"id": "a", "address": self.backend.address}],
                    "health": {"active": {"type": "none"}},
                    **options,
                }
            }
        )

    def workers(self) -> list[dict[str, Any]]:
        """Return both workers' status."""
        workers: list[dict[str, Any]] = self.plane.status()["workers"]
        return workers

    def pooled(self) -> dict[int, int]:
        """Return the idle connections of each worker, by pid."""
        return {worker["pid"]: worker["pooled"] for worker in self.workers()}

    def client(self) -> socket.socket:
        """Connect a client, which stays until it is closed, or until the end of the test."""
        client = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        client.settimeout(10)
        client.connect(str(self.path))
        return client

    def clients(self, other: int, count: int) -> list[socket.socket]:
        """Connect clients, and have all of them served by the worker that is not `other`."""
        with stopped(other):
            clients = [self.client() for _ in range(count)]
            for client in clients:
                client.sendall(b"x\n")
            for client in clients:
                assert client.recv(100).startswith(b"a:")
        return clients

    def visit(self, other: int, count: int, *, left: int = 0) -> None:
        """Have clients come and leave together, all of them at the worker that is not `other`; `left` others stay."""
        for client in self.clients(other, count):
            client.close()
        self.plane.wait_status(lambda status: status["services"]["web"]["active"] == left)


def test_a_pool_goes_where_the_clients_are() -> None:
    """Who has all the clients has all of `max_idle`; when they go to its sibling, that gets nearly all of it."""
    with ExitStack() as stack:
        site = Site(stack, pool=REUSE)
        one, other = (worker["pid"] for worker in site.workers())
        site.visit(other, SIZE)
        assert site.pooled() == {one: SIZE, other: 0}

        def moved() -> bool:
            site.visit(one, SIZE)
            pooled = site.pooled()
            assert sum(pooled.values()) <= SIZE
            return pooled[other] >= SIZE * 3 // 4

        wait_for(moved, "the pool to move")
        assert (
            site.plane.metrics().value("lb_pool_discarded_total", backend="a", cause="surplus") >= SIZE // 2
        )


def test_a_killed_workers_pool_is_free_for_others() -> None:
    """What a worker held when it was killed does not count any more."""
    with ExitStack() as stack:
        site = Site(stack, pool=REUSE)
        one, other = (worker["pid"] for worker in site.workers())
        site.visit(other, SIZE)
        assert site.pooled() == {one: SIZE, other: 0}
        os.kill(one, signal.SIGKILL)
        site.plane.wait_status(
            lambda status: len(status["workers"]) == 2 and one not in [w["pid"] for w in status["workers"]]
        )
        successor = next(pid for pid in site.pooled() if pid != other)
        site.visit(successor, SIZE)
        assert site.pooled() == {successor: 0, other: SIZE}


def test_idle_connections_of_all_workers_count_towards_a_backends_limit() -> None:
    """Clients of one worker displace what another holds idle, and the backend has its limit soon again."""
    with ExitStack() as stack:
        site = Site(stack, pool=REUSE, limits={"per_backend": SIZE})
        one, other = (worker["pid"] for worker in site.workers())
        site.visit(other, SIZE)
        assert site.pooled() == {one: SIZE, other: 0}
        site.clients(one, 5)
        site.plane.wait_status(
            lambda status: (
                (backend := status["services"]["web"]["backends"][0])["active"] == 5
                and backend["pooled"] == SIZE - 5
            )
        )
        discarded = site.plane.backend("web", "a")["totals"]["pool"]["discarded"]
        assert discarded == {"displaced": 5}
        site.visit(one, 3, left=5)
        site.plane.wait_status(lambda status: status["services"]["web"]["backends"][0]["pooled"] == SIZE - 5)


def ended(client: socket.socket) -> bool:
    """Tell whether a client was turned away."""
    return bool(select.select([client], [], [], 0)[0])  # nobody has asked, so it is nothing but the end


def queue_up(site: Site, worker: int, other: int) -> None:
    """Connect three clients, and have a worker take them, whatever it makes of them."""
    descriptors = Path(f"/proc/{worker}/fd")
    before = len(list(descriptors.iterdir()))
    with stopped(other):
        clients = [site.client() for _ in range(3)]
        wait_for(
            lambda: len(list(descriptors.iterdir())) - before + sum(map(ended, clients)) == len(clients),
            "the clients to be taken",
        )


def test_a_queue_is_limited_per_node() -> None:
    """`limits.queue` clients wait in all workers together, however they are spread; others are turned away."""
    with ExitStack() as stack:
        site = Site(
            stack, pool={"mode": "off"}, limits={"connections": 2, "queue": 4, "queue_timeout": "60s"}
        )
        one, other = (worker["pid"] for worker in site.workers())
        site.clients(other, 2)
        queue_up(site, one, other)
        queue_up(site, other, one)
        service = site.plane.status()["services"]["web"]
        assert (service["queued"], service["totals"]["closed"]) == (4, {"queue_full": 2})
