"""Host names of backends: which of several addresses is used, what happens when they change, and what leads back."""

from __future__ import annotations

import asyncio
import socket

import pytest

from dataplane.node import resolver as resolver_module
from dataplane.node.resolver import Resolver
from schemas.loops import Machine
from tests.dataplane.node.bench import DEADLINE_S, benched, greeter

QUIET = {"active": {"type": "none"}}


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
        if isinstance(table[host], Exception):
            raise table[host]
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
        health = bench.node.running["s"].health(backend)
        assert (health.state.value, health.cause) == (
            "down",
            "name not resolved: Name or service not known",
        )
        names["db.test"] = ["127.0.0.1"]
        await bench.until(lambda: backend.usable)
        _, writer = await bench.connect()
        writer.close()
        assert kinds(bench).count("unresolved") == 1, "said once, not with each attempt"


async def test_a_name_that_no_resolver_takes(bench, names, resolver):
    """What IDNA refuses is no host name, and no reason to look at no other name any more."""
    names["a"] = UnicodeError("label empty or too long")
    names["db.test"] = ["127.0.0.1"]
    await bench.put("a:1", "db.test:1")
    bad, good = bench.service.backends.values()
    await bench.until(lambda: good.usable and bad.absence.cause == "name not resolved: not a host name")


@pytest.mark.parametrize("failures", [0, 5])
async def test_the_first_address_that_accepts(bench, names, resolver, failures):
    """No client is lost to an address on which nobody listens: `localhost` is ::1 as well on most machines."""
    async with greeter() as one:
        port = one.address.rpartition(":")[2]
        names["db.test"] = ["::1", "127.0.0.9", "127.0.0.1"]
        await bench.put(f"db.test:{port}", retries=0, health={**QUIET, "passive": {"failures": failures}})
        (backend,) = bench.service.backends.values()
        await bench.until(lambda: backend.usable)
        for _ in range(3):
            _, writer = await bench.connect()
            writer.close()
        assert backend.address.sockaddr == ("127.0.0.1", int(port)), "the one that works is kept"
        assert backend.totals.connect_failures == 0


async def test_families_take_turns(bench, names, resolver):
    """Addresses are tried in the resolver's order, but not all of one family before the first of the other."""
    names["db.test"] = ["::1", "::2", "::2", "::3", "127.0.0.8", "127.0.0.9"]
    await bench.put("db.test:1")
    (backend,) = bench.service.backends.values()
    await bench.until(lambda: backend.usable)
    order = [address.sockaddr[0] for address in (backend.address, *backend.others)]
    assert order == ["::1", "127.0.0.8", "::2", "127.0.0.9", "::3"]


async def test_nobody_accepts(bench, names, resolver):
    """If nobody listens on any of them, a client's attempt fails once, as with one address."""
    names["db.test"] = ["127.0.0.8", "127.0.0.9"]
    await bench.put("db.test:1", retries=0)
    (backend,) = bench.service.backends.values()
    await bench.until(lambda: backend.usable)
    reader, writer = await asyncio.open_connection(bench.port.host, bench.port.port)
    assert await asyncio.wait_for(reader.read(), DEADLINE_S) == b""
    writer.close()
    assert backend.totals.connect_failures == 1
    assert backend.address.sockaddr == ("127.0.0.8", 1)


async def test_checks_go_where_clients_go(bench, names, resolver):
    """The server at one address of two dies: checks go on at the other one, and no client is lost to the first."""
    probing = asyncio.create_task(bench.node.prober.run())
    check = {"type": "tcp", "interval": "10ms", "timeout": "1s", "rise": 1, "fall": 1}
    try:
        async with greeter() as one:
            port = one.address.rpartition(":")[2]
            names["db.test"] = ["127.0.0.3", "127.0.0.1"]
            health = {"active": check, "passive": {"failures": 0}}
            async with greeter(host="127.0.0.3", port=int(port)):
                await bench.put(f"db.test:{port}", health=health, retries=0)
                (backend,) = bench.service.backends.values()
                await bench.until(lambda: backend.health.state.value == "up")
                assert backend.address.sockaddr[0] == "127.0.0.3"
            await bench.until(lambda: backend.address.sockaddr[0] == "127.0.0.1")
            assert backend.health.state.value == "up"
            _, writer = await bench.connect()
            writer.close()
        await bench.until(lambda: backend.health.state.value == "down")
    finally:
        probing.cancel()
        await asyncio.gather(probing, return_exceptions=True)


async def test_an_address_stays_while_it_is_good(bench, names, resolver):
    """A name that resolves in another order does not move anybody, nor does a lookup that fails."""
    async with greeter() as one:
        port = one.address.rpartition(":")[2]
        names["db.test"] = ["127.0.0.1"]
        await bench.put(f"db.test:{port}")
        (backend,) = bench.service.backends.values()
        await bench.until(lambda: backend.usable)
        names["db.test"] = ["127.0.0.9", "127.0.0.1"]
        await bench.until(lambda: backend.others)
        seen = []
        del names["db.test"]
        await bench.until(lambda: seen.append(1) or len(seen) > 200)
        assert backend.address.sockaddr == ("127.0.0.1", int(port))
        assert [address.sockaddr[0] for address in backend.others] == ["127.0.0.9"]
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


async def test_a_name_of_our_own_listener(bench, names, resolver):
    """A name that leads back is neither dialled nor checked, and status says why; as soon as it leads elsewhere it is used."""
    async with greeter() as one:
        port = one.address.rpartition(":")[2]
        names["db.test"] = [bench.port.host]
        probing = asyncio.create_task(bench.node.prober.run())
        try:
            check = {"active": {"type": "tcp", "interval": "10ms"}}
            await bench.put(f"db.test:{bench.port.port}", health=check)
            (backend,) = bench.service.backends.values()
            await bench.until(lambda: "backend_loop" in kinds(bench))
            health = bench.node.running["s"].health(backend)
            assert health.state.value == "down"
            assert f"{bench.port.address} is where this service itself listens" in health.cause
            assert backend.address is None
            seen = []
            await bench.until(lambda: seen.append(1) or len(seen) > 200)
            assert bench.service.totals.connections == 0
            assert kinds(bench).count("backend_loop") == 1
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)
        await bench.put(f"db.test:{port}")
        (backend,) = bench.service.backends.values()
        await bench.until(lambda: backend.usable)
        names["db.test"] = [bench.port.host, "127.0.0.1"]
        await bench.put(f"db.test:{port}")
        _, writer = await bench.connect()
        writer.close()


async def test_only_the_address_that_leads_back(bench, names, resolver):
    """Of several addresses only the one that leads back is left out."""
    names["db.test"] = [bench.port.host, "127.0.0.9"]
    await bench.put(f"db.test:{bench.port.port}")
    (backend,) = bench.service.backends.values()
    await bench.until(lambda: backend.usable)
    assert (backend.address.sockaddr[0], backend.others) == ("127.0.0.9", ())


async def test_an_address_that_comes_to_this_machine(bench, names):
    """A backend at an address that the machine gets is called no more, and called again when the address has moved on."""
    own = set()
    machine = Machine(own.__contains__, str)
    resolver = Resolver(bench.node, machine)
    bench.applier.on_change = resolver.wake
    task = asyncio.create_task(resolver.run())
    port = bench.port.port
    await bench.put(f"192.0.2.7:{port}", listen=f"0.0.0.0:{port}")
    (backend,) = bench.service.backends.values()
    assert backend.usable
    own.add("192.0.2.7")
    resolver._on_move()
    await bench.until(lambda: not backend.usable)
    assert "itself listens" in bench.node.running["s"].health(backend).cause
    own.clear()
    resolver._on_move()
    await bench.until(lambda: backend.usable)
    assert backend.address.sockaddr == ("192.0.2.7", port)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
