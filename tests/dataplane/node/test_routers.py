"""Which listeners have a router, through changes, and what each service counts meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dataplane.node.routers import accepted
from tests.dataplane.node.bench import DEADLINE_S, Bench, benched
from tests.support.checked import backend, saying
from tests.support.hellos import real_hello
from tests.support.ports import HeldPort

QUIET: dict[str, Any] = {"pool": {"mode": "off"}, "health": {"active": {"type": "none"}}}
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A node."""
    async with benched() as bench:
        yield bench


async def put(bench: Bench, **services: dict[str, Any]) -> None:
    """Run services that share the bench's address."""
    bench.generation += 1
    body = {name: {"listen": bench.port.address, **QUIET, **one} for name, one in services.items()}
    await bench.applier.apply({"version": 1, "generation": bench.generation, "services": body})


async def ask(bench: Bench, name: str, answer: bytes) -> Client:
    """Connect a client that asks for a name, and see who answers."""
    reader, writer = await asyncio.open_connection(bench.port.host, bench.port.port)
    writer.write(real_hello(name))
    assert await asyncio.wait_for(reader.readexactly(len(answer)), DEADLINE_S) == answer
    return reader, writer


def counts(bench: Bench) -> dict[str, int]:
    """Return how many clients were accepted for each service."""
    return {name: count for name, _, count, _ in accepted(bench.node)}


async def test_routes_that_come_move_and_go_under_connections(bench: Bench) -> None:
    """Each new client goes by what holds now; who is connected stays; no count falls."""
    async with backend(saying(b"one")) as one, backend(saying(b"two")) as two:
        first = {"backends": [one.address]}
        second = {"backends": [two.address]}
        a, b = {"match": {"sni": ["a.example"]}}, {"match": {"sni": ["b.example"]}}
        await put(bench, a=first)
        assert not bench.node.routers
        clients = [await ask(bench, "b.example", b"one")]
        await put(bench, a=first, b=second | b)
        clients += [await ask(bench, "b.example", b"two"), await ask(bench, "x.example", b"one")]
        assert counts(bench) == {"a": 2, "b": 1}
        await put(bench, a=first | b, b=second | a)
        clients += [await ask(bench, "b.example", b"one"), await ask(bench, "a.example", b"two")]
        assert counts(bench) == {"a": 3, "b": 2}
        assert [running.service.totals.connections for running in bench.node.running.values()] == [3, 2]
        await put(bench, b=second)
        assert not bench.node.routers
        clients.append(await ask(bench, "b.example", b"two"))
        assert counts(bench) == {"b": 3}
        assert [
            len(one.service.flows) for one in (*bench.node.running.values(), *bench.node.leaving.values())
        ] == [3, 3]
        for reader, writer in clients:
            assert not reader.at_eof()
            writer.close()


async def test_a_listener_that_goes_serves_who_waits(bench: Bench) -> None:
    """Accepted is accepted: whoever has not said yet what it wants gets it when it does."""
    async with backend(saying(b"one")) as one, backend(saying(b"two")) as two:
        services = {
            "a": {"backends": [one.address], "match": {"sni": ["a.example"]}},
            "b": {"backends": [two.address], "match": {"sni": ["b.example"]}},
        }
        await put(bench, **services)
        reader, writer = await asyncio.open_connection(bench.port.host, bench.port.port)
        await bench.until(lambda: bench.node.routers[bench.port.address].unrouted)
        with HeldPort() as other:
            await put(bench, **{name: {**one, "listen": other.address} for name, one in services.items()})
        writer.write(real_hello("b.example"))
        assert await asyncio.wait_for(reader.readexactly(3), DEADLINE_S) == b"two"
        writer.close()


async def test_a_service_that_goes_with_a_client_that_waits_is_forgotten(bench: Bench) -> None:
    """It drains until nobody is left; the one that was never its own is the next one's."""
    async with backend(saying(b"two")) as two:
        b = {"backends": [two.address], "match": {"sni": ["b.example"]}}
        await put(bench, a={"match": {"sni": ["a.example"]}}, b=b)
        reader, writer = await asyncio.open_connection(bench.port.host, bench.port.port)
        await bench.until(lambda: bench.node.running["a"].service.flows)
        await put(bench, b=b)
        assert not bench.node.leaving
        writer.write(real_hello("b.example"))
        assert await asyncio.wait_for(reader.readexactly(3), DEADLINE_S) == b"two"
        writer.close()


async def test_a_node_that_ends_waits_for_who_has_not_been_routed(bench: Bench) -> None:
    """And ends it at the drain timeout, for that reason."""
    ended: list[str] = []
    bench.node.access_log = lambda flow, reason, server: ended.append(reason.value)
    drain = {"drain": {"timeout": "0s", "close": "0s"}}
    await put(
        bench, a={"match": {"sni": ["a.example"]}, **drain}, b={"match": {"sni": ["b.example"]}, **drain}
    )
    _, writer = await asyncio.open_connection(bench.port.host, bench.port.port)
    await bench.until(lambda: bench.node.running["a"].service.flows)
    await asyncio.wait_for(bench.node.drain(), DEADLINE_S)
    assert ended == ["shutdown"]
    writer.close()
