from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from controlplane.discovery.consul import registration
from controlplane.discovery.consul.registration import Registration, Served
from controlplane.discovery.consul.settings import with_address
from tests.support.discovery import RUNTIME, eventually
from tests.support.fakeconsul import FakeConsul

WEB = Served("web", "10.0.0.9", 4000)
DB = Served("db", "", 5432)


@pytest.fixture
async def consul():
    """A Consul with nothing in it."""
    async with FakeConsul() as fake:
        yield fake


class Balancer:
    """A balancer that can be ready."""

    def __init__(self, consul, **options):
        self.is_ready = True
        self.registration = Registration(
            with_address(consul.address),
            node="edge 1",
            ready=lambda: self.is_ready,
            runtime=RUNTIME,
            **options,
        )

    @asynccontextmanager
    async def running(self):
        """Run it, and end it."""
        task = asyncio.create_task(self.registration.run())
        try:
            yield
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_registers_and_leaves(consul, no_blocking):
    """What is served is registered with a passing check, and deregistered at the end."""
    balancer = Balancer(consul)
    balancer.registration.update([WEB, DB])
    async with balancer.running():
        await eventually(lambda: len(consul.registered) == 2, "both services")
        web_id = "lb-edge-1-web-10.0.0.9-4000"
        assert consul.registered[web_id]["Port"] == 4000
        assert consul.registered[web_id]["Check"]["TTL"] == "10s"
        await eventually(
            lambda: balancer.registration.status()["registered"] == ["lb-edge-1-db-5432", web_id], "status"
        )
        assert set(consul.checks.values()) == {"passing"}
        assert balancer.registration.status()["state"] == "ok"
    assert consul.registered == {}


async def test_never_under_the_services_own_name(consul):
    """A balancer of `web` is not an instance of `web`: it would discover itself."""
    balancer = Balancer(consul)
    balancer.registration.update([WEB])
    async with balancer.running():
        await eventually(lambda: consul.registered, "a service")
        assert [body["Name"] for body in consul.registered.values()] == ["lb-web"]


async def test_readiness_is_the_check(consul):
    """The check is critical while the balancer is not ready, from the moment that it says so."""
    balancer = Balancer(consul)
    balancer.is_ready = False
    balancer.registration.update([WEB])
    async with balancer.running():
        await eventually(lambda: set(consul.checks.values()) == {"critical"}, "a critical check")
        balancer.is_ready = True
        balancer.registration.update([WEB])
        await eventually(lambda: set(consul.checks.values()) == {"passing"}, "a passing check")


async def test_follows_what_is_served(consul):
    """A service that is no longer served is deregistered, a new one registered."""
    balancer = Balancer(consul)
    balancer.registration.update([WEB])
    async with balancer.running():
        await eventually(lambda: consul.registered, "the first service")
        balancer.registration.update([DB])
        await eventually(
            lambda: [body["Name"] for body in consul.registered.values()] == ["lb-db"], "the second"
        )


async def test_an_agent_that_forgot(consul):
    """An agent that lost its memory is told everything again."""
    balancer = Balancer(consul)
    balancer.registration.update([WEB])
    async with balancer.running():
        await eventually(lambda: consul.registered, "a service")
        consul.registered.clear()
        consul.checks.clear()
        balancer.registration.update([WEB])
        await eventually(lambda: consul.registered, "the service again")


async def test_errors_are_told_and_outlived(consul):
    """An agent that does not answer is asked again, and status says why."""

    async def no(_request):
        return web.Response(status=403, text="Permission denied")

    consul.fault = no
    balancer = Balancer(consul)
    balancer.registration.update([WEB])
    async with balancer.running():
        await eventually(lambda: balancer.registration.status()["state"] == "denied", "the refusal")
        consul.fault = None
        await eventually(lambda: balancer.registration.status()["state"] == "ok", "success")
        assert consul.registered


async def test_leaves_what_it_was_about_to_register(consul):
    """What the agent has taken, though its answer never arrived, is deregistered as well."""
    answer, reached = consul._agent, asyncio.Event()

    async def slow(request, rest):
        done = await answer(request, rest)
        if rest == "service/register":
            reached.set()
            await asyncio.Event().wait()
        return done

    consul._agent = slow
    balancer = Balancer(consul)
    balancer.registration.update([WEB])
    async with balancer.running():
        await reached.wait()
    assert consul.registered == {}


async def test_a_silent_agent_does_not_hold_up_the_end(consul, monkeypatch):
    """However many services there are, leaving waits for one call at most."""
    many = [Served("web", "10.0.0.9", port) for port in range(4000, 4020)]
    balancer = Balancer(consul)
    balancer.registration.update(many)
    async with balancer.running():
        await eventually(
            lambda: len(balancer.registration.status()["registered"]) == len(many), "all of them"
        )

        async def silent(_request):
            await asyncio.Event().wait()

        consul.fault = silent
        monkeypatch.setattr(registration, "CALL_TIMEOUT_S", 0.05)
        before = len(consul.asked)
    assert len(consul.asked) - before < 4
