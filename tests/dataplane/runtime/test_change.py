"""Changes of a node while its connections come and go, in the test's own event loop."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from random import Random

import pytest

from dataplane.net.reactor import Reactor
from dataplane.runtime.apply import Applier
from dataplane.runtime.convert import service_spec
from dataplane.runtime.doors import OwnDoors
from dataplane.runtime.events import Events
from dataplane.runtime.node import Node
from schemas.snapshot import parse_snapshot
from tests.support.checked import backend, saying
from tests.support.ports import HeldPort

DEADLINE_S = 10


class Bench:
    """A node on the running loop, and a service called `s`."""

    def __init__(self, port):
        self.port = port
        self.reactor = Reactor(asyncio.get_running_loop(), 1024)
        self.told = []
        events = Events(lambda kind, **fields: self.told.append((kind, fields)), time.time)
        self.node = Node(self.reactor, events, Random(1))
        self.doors = OwnDoors(self.node, reuse_port=False)
        self.applier = Applier(self.node, None, self.doors)
        self.generation = 0

    def body(self, *backends, **options):
        """Return a snapshot of the service."""
        self.generation += 1
        quiet = {"pool": {"mode": "off"}, "health": {"active": {"type": "none"}}}
        service = {"listen": self.port.address, "backends": list(backends), **quiet, **options}
        return {"version": 1, "generation": self.generation, "services": {"s": service}}

    async def put(self, *backends, **options):
        """Run it."""
        return await self.applier.apply(self.body(*backends, **options))

    async def draft(self, *backends):
        """Prepare it, and run nothing yet."""
        snapshot = parse_snapshot(self.body(*backends))
        return await self.applier.changer.prepare(
            [service_spec(name, service) for name, service in snapshot.services.items()]
        )

    @property
    def service(self):
        """The running service."""
        return self.node.running["s"].service

    async def connect(self):
        """Connect a client, and wait until it has been answered."""
        reader, writer = await asyncio.open_connection(self.port.host, self.port.port)
        assert await asyncio.wait_for(reader.read(100), DEADLINE_S) == b"hello"
        return reader, writer

    async def until(self, holds):
        """Let the loop run until `holds()`."""
        async with asyncio.timeout(DEADLINE_S):
            while not holds():  # noqa: ASYNC110 - asked in each turn of the loop: a change takes only some
                await asyncio.sleep(0)


@pytest.fixture
async def bench():
    """A node."""
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
async def greeter():
    """Run a backend that says hello."""
    async with backend(saying(b"hello")) as it:
        yield it


async def test_a_backend_that_has_gone_before_it_comes_back(bench):
    """A removed backend may lose its last connection between the moment a change is prepared and when it is made."""
    async with greeter() as one, greeter() as two:
        await bench.put(one.address, two.address)
        _, writer = await bench.connect()
        await bench.put(two.address)
        assert [left.id for left in bench.service.leaving] == [one.address]
        draft = await bench.draft(one.address, two.address)
        writer.close()
        await bench.until(lambda: not bench.service.leaving)
        await bench.doors.prepare(draft.addresses())
        await bench.applier.changer.swap(draft, bench.doors)
        assert set(bench.service.backends) == {one.address, two.address}
        clients = [await bench.connect() for _ in range(2)]
        assert {flow.backend.id for flow in bench.service.flows} == {one.address, two.address}
        for _, writer in clients:
            writer.close()
        await bench.until(lambda: not bench.service.flows)


async def test_a_service_that_has_gone_before_it_comes_back(bench):
    """The same for a removed service: it is made anew."""
    async with greeter() as one:
        await bench.put(one.address)
        _, writer = await bench.connect()
        await bench.applier.apply({"version": 1, "generation": 2, "services": {}})
        bench.generation = 2
        assert "s" in bench.node.leaving
        draft = await bench.draft(one.address)
        writer.close()
        await bench.until(lambda: not bench.node.leaving)
        await bench.doors.prepare(draft.addresses())
        await bench.applier.changer.swap(draft, bench.doors)
        _, writer = await bench.connect()
        writer.close()
        await bench.until(lambda: not bench.service.flows)


async def test_a_backend_that_goes_while_the_change_is_made(bench):
    """A change of many backends is made in slices; a drained one may lose its last connection in between."""
    async with greeter() as one:
        many = [{"id": f"b{number}", "address": "127.0.0.1:1", "state": "drain"} for number in range(600)]
        await bench.put(*many, one.address)
        _, writer = await bench.connect()
        await bench.put(*many)
        (left,) = bench.service.leaving
        changing = asyncio.create_task(bench.put(*many, one.address, mode="leastconn"))
        await bench.until(lambda: bench.service.spec.mode.value == "leastconn" or changing.done())
        assert not changing.done(), "it is made in slices"
        for flow in list(bench.service.flows):
            flow.on_failure()
        assert left not in bench.service.leaving
        await changing
        writer.close()
        assert bench.service.backends[one.address] is left
        _, writer = await bench.connect()
        writer.close()
        await bench.until(lambda: not bench.service.flows)
