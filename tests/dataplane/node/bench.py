"""A node in the test's own event loop, with one service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from dataplane.net.reactor import Reactor
from dataplane.net.service import Service
from dataplane.node.apply import Applier
from dataplane.node.change import Draft
from dataplane.node.listeners import OwnListeners
from dataplane.node.node import Node
from dataplane.node.specs import service_spec
from dataplane.telemetry.events import Events
from schemas.snapshot import parse_snapshot
from tests.support.checked import Backend, backend, saying
from tests.support.ports import HeldPort

DEADLINE_S = 40


class Unsaved:
    """Keeps nothing for the next start (dataplane.node.snapshot_file.SnapshotStore)."""

    saved = True

    async def save(self, _snapshot: object, _written: object) -> None:
        """Do nothing."""

    async def again(self) -> None:
        """Do nothing."""


class Bench:
    """A node on the running loop, and a service called `s`."""

    def __init__(self, port: HeldPort) -> None:
        self.port = port
        self.reactor = Reactor(asyncio.get_running_loop(), 1024)
        self.told: list[tuple[str, dict[str, Any]]] = []
        events = Events(lambda kind, **fields: self.told.append((kind, fields)), time.time)
        self.node = Node(self.reactor, events, Random(1))
        self.listeners = OwnListeners(self.node, reuse_port=False)
        self.applier = Applier(self.node, Unsaved(), self.listeners)  # type: ignore[arg-type]
        self.generation = 0

    def body(self, *backends: object, **options: Any) -> dict[str, Any]:
        """Return a snapshot of the service."""
        self.generation += 1
        quiet: dict[str, Any] = {"pool": {"mode": "off"}, "health": {"active": {"type": "none"}}}
        service = {"listen": self.port.address, "backends": list(backends), **quiet, **options}
        return {"version": 1, "generation": self.generation, "services": {"s": service}}

    async def put(self, *backends: object, **options: Any) -> None:
        """Run it."""
        await self.applier.apply(self.body(*backends, **options))

    async def draft(self, *backends: object, **options: Any) -> Draft:
        """Prepare it, and run nothing yet."""
        snapshot = parse_snapshot(self.body(*backends, **options))
        changer = self.applier.changer
        draft = await changer.prepare(
            [service_spec(name, service) for name, service in snapshot.services.items()]
        )
        await changer.make(draft)
        return draft

    @property
    def service(self) -> Service:
        """The running service."""
        return self.node.running["s"].service

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect a client, and wait until it has been answered."""
        reader, writer = await asyncio.open_connection(self.port.host, self.port.port)
        assert await asyncio.wait_for(reader.read(100), DEADLINE_S) == b"hello"
        return reader, writer

    async def until(self, holds: Callable[[], object]) -> None:
        """Let the loop run until `holds()`."""
        async with asyncio.timeout(DEADLINE_S):
            while not holds():  # noqa: ASYNC110 - asked in each turn of the loop: a change takes only some
                await asyncio.sleep(0)


@asynccontextmanager
async def benched() -> AsyncIterator[Bench]:
    """Run a node, and end everything that it has in the end."""
    with HeldPort() as port:
        bench = Bench(port)
        bench.reactor.start()
        yield bench
        for listener in list(bench.node.listeners.values()):
            listener.close()
        for running in [*bench.node.running.values(), *bench.node.leaving.values()]:
            for flow in list(running.service.flows):
                flow.on_failure()
        bench.reactor.close()


@asynccontextmanager
async def greeter(**options: Any) -> AsyncIterator[Backend]:
    """Run a backend that says hello."""
    async with backend(saying(b"hello"), **options) as it:
        yield it
