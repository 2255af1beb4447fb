"""Host names of backends: which of several addresses is used, and what happens when they change."""

from __future__ import annotations

import asyncio
import socket

import pytest

from dataplane.runtime import resolver as resolver_module
from dataplane.runtime.resolver import Resolver
from tests.dataplane.runtime.bench import benched, greeter


@pytest.fixture
async def bench():
    """A node with a resolver that looks again every few milliseconds."""
    async with benched() as bench:
        yield bench


@pytest.fixture
async def names(monkeypatch):
    """What names resolve to: a table that the test changes."""
    table = {}

    async def getaddrinfo(host, port, **_):
        if host not in table:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(None, None, 0, "", (address, port)) for address in table[host]]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(resolver_module, "REFRESH_S", 0.01)
    monkeypatch.setattr(resolver_module, "RETRY_S", 0.01)
    return table


@pytest.fixture
async def resolver(bench, names):
    """The resolver at work."""
    resolver = Resolver(bench.node)
    bench.applier.on_change = resolver.wake
    task = asyncio.create_task(resolver.run())
    yield resolver
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def kinds(bench):
    """Return the kinds of events so far."""
    return [kind for kind, _ in bench.told]


async def test_a_name_that_comes_to_exist(bench, names, resolver):
    """A backend without an address is not used; it is as soon as its name resolves."""
    async with greeter() as one:
        port = one.address.rpartition(":")[2]
        await bench.put(f"db.test:{port}")
        (backend,) = bench.service.backends.values()
        await bench.until(lambda: "unresolved" in kinds(bench))
        assert not backend.usable
        assert "not known" in backend.resolve_error
        names["db.test"] = ["127.0.0.1"]
        await bench.until(lambda: backend.usable)
        _, writer = await bench.connect()
        writer.close()
        assert kinds(bench).count("unresolved") == 1, "said once, not with each attempt"


async def test_the_first_address_that_accepts(bench, names, resolver):
    """Of several addresses the first on which somebody listens is used: `localhost` is ::1 as well on most machines."""
    async with greeter() as one:
        port = one.address.rpartition(":")[2]
        names["db.test"] = ["::1", "127.0.0.9", "127.0.0.1"]
        await bench.put(f"db.test:{port}")
        (backend,) = bench.service.backends.values()
        await bench.until(lambda: backend.usable)
        assert backend.address.sockaddr == ("127.0.0.1", int(port))
        _, writer = await bench.connect()
        writer.close()


async def test_nobody_accepts(bench, names, resolver):
    """If nobody listens on any of them, the first is used, and its failures are told as usual."""
    names["db.test"] = ["127.0.0.8", "127.0.0.9"]
    await bench.put("db.test:1")
    (backend,) = bench.service.backends.values()
    await bench.until(lambda: backend.usable)
    assert backend.address.sockaddr == ("127.0.0.8", 1)


async def test_an_address_stays_while_it_is_good(bench, names, resolver):
    """A name that resolves in another order does not move anybody, nor does a lookup that fails."""
    async with greeter() as one:
        port = one.address.rpartition(":")[2]
        names["db.test"] = ["127.0.0.1"]
        await bench.put(f"db.test:{port}")
        (backend,) = bench.service.backends.values()
        await bench.until(lambda: backend.usable)
        names["db.test"] = ["127.0.0.9", "127.0.0.1"]
        seen = []
        await bench.until(lambda: seen.append(1) or len(seen) > 200)
        del names["db.test"]
        await bench.until(lambda: seen.append(1) or len(seen) > 400)
        assert backend.address.sockaddr == ("127.0.0.1", int(port))
        assert backend.usable
        assert kinds(bench).count("resolved") == 1


async def test_another_address(bench, names, resolver):
    """When the address is gone from the answer, the next connection goes to the new one."""
    async with greeter() as one, greeter(host="::1") as two:
        port = one.address.rpartition(":")[2]
        names["db.test"] = ["127.0.0.1"]
        await bench.put(f"db.test:{port}")
        (backend,) = bench.service.backends.values()
        await bench.until(lambda: backend.usable)
        names["db.test"] = ["127.0.0.9"]
        await bench.until(lambda: backend.address.sockaddr[0] == "127.0.0.9")
        assert kinds(bench).count("resolved") == 2
        assert two.accepted == 0


async def test_a_backend_that_is_down_is_looked_at_again(bench, names, resolver):
    """A backend that its checks found down is given another of its addresses, if somebody listens there."""
    async with greeter() as one:
        port = one.address.rpartition(":")[2]
        names["db.test"] = ["127.0.0.9"]
        await bench.put(f"db.test:{port}")
        (backend,) = bench.service.backends.values()
        await bench.until(lambda: backend.usable)
        names["db.test"] = ["127.0.0.9", "127.0.0.1"]
        backend.health.observe(False, "connection refused", bench.reactor.now)
        bench.node.reassess(bench.node.running["s"], backend)
        await bench.until(lambda: backend.address.sockaddr[0] == "127.0.0.1")
