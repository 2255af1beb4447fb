"""Changes of a node while its connections come and go, in the test's own event loop."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.dataplane.runtime.bench import benched, greeter


@pytest.fixture
async def bench():
    """A node."""
    async with benched() as bench:
        yield bench


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


async def test_a_removed_backend_that_never_answered(bench):
    """A backend that is removed while it is dialled, and then refuses, is gone from the status."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = f"127.0.0.1:{full.getsockname()[1]}"
        with socket.create_connection(full.getsockname()):
            await bench.put(address, timeouts={"connect": "200ms"})
            _, writer = await asyncio.open_connection(bench.port.host, bench.port.port)
            await bench.until(lambda: bench.service.flows)
            await bench.put(timeouts={"connect": "200ms"})
            assert len(bench.service.leaving) == 1
            await bench.until(lambda: not bench.service.flows)
            assert not bench.service.leaving
            writer.close()
