"""Registration in the daemon: what every data plane serves, as ready as they are, and gone when the daemon goes."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from aiohttp import web

from controlplane.daemon import registration
from controlplane.daemon.registration import Registering, Served, sorted_out
from controlplane.daemon.standing import Standing
from controlplane.desired.document import Proposal
from controlplane.operations.drain_file import DrainFile
from controlplane.operations.options import ApplyOptions, Origin
from schemas.discovery import Consul
from tests.controlplane.fakes import FakeDataPlane, ReadyFleet
from tests.controlplane.operations.test_controller import daemon
from tests.support.discovery import RUNTIME, eventually
from tests.support.fakeconsul import FakeConsul

BY = Origin("op", "apply")
QUICK = ApplyOptions(timeout_s=5.0)
WEB = "lb-edge-web-10.0.0.9-4000"
DB = "lb-edge-db-5432"


def proposal(tmp_path, consul, *, register=True, **listen):
    """Check an lb.yaml with these services."""
    document = {
        "version": 1,
        "consul": {"address": consul.address, "register": register},
        "services": {name: {"listen": where, "backends": []} for name, where in listen.items()},
    }
    return Proposal.of_document(document, "test", tmp_path)


@contextlib.asynccontextmanager
async def registering(controller, tmp_path, log=lambda _: None):
    """Register beside a controller, as the daemon does."""
    standing = Standing(controller.fleet, DrainFile(tmp_path))
    registered = Registering(controller.fleet, standing, log, node="edge")
    task = asyncio.create_task(registered.run())

    async def apply(wanted):
        await controller.apply(wanted, QUICK, BY)
        registered.follow(controller.desired.consul, controller.accepted.state.services)

    try:
        yield registered, apply
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_listeners_that_others_can_reach():
    """Every listener that others reach is registered once; one on all addresses has the agent's."""
    services = {
        "web": {"listen": ["10.0.0.9:4000", "[2001:db8::1]:4001", "unix:/run/web.sock", "127.0.0.1:4000"]},
        "db": {"listen": ["0.0.0.0:5432", "[::]:5432", "[::ffff:0.0.0.0]:5432"]},
    }
    served, left_out = sorted_out(services)
    assert served == {
        Served("web", "10.0.0.9", 4000),
        Served("web", "2001:db8::1", 4001),
        Served("db", "", 5432),
    }
    assert [(each.service, each.address) for each in left_out] == [
        ("web", "127.0.0.1:4000"),
        ("web", "unix:/run/web.sock"),
    ]


@pytest.mark.parametrize(
    ("listener", "why"),
    [
        ("127.0.0.1:4000", "loopback"),
        ("127.8.9.10:4000", "loopback"),
        ("[::1]:4000", "loopback"),
        ("[::ffff:127.0.0.1]:4000", "loopback"),
        ("169.254.3.4:4000", "link-local"),
        ("[fe80::1]:4000", "link-local"),
        ("[fe80::1%eth0]:4000", "link-local"),
        ("unix:/run/web.sock", "Unix socket"),
    ],
)
def test_listeners_that_others_cannot_reach(listener, why):
    """What means something else on every other machine is not told to them, and the reason is given."""
    services = {"web": {"listen": [listener]}}
    served, (left_out,) = sorted_out(services)
    assert served == frozenset()
    assert (left_out.service, left_out.address) == ("web", listener)
    assert why in left_out.why


async def test_what_is_left_out_is_said(tmp_path):
    """A loopback listener never reaches Consul; log and status say which one, and why, once."""
    said = []
    async with FakeConsul() as consul, daemon(tmp_path, [FakeDataPlane()]) as controller:
        async with registering(controller, tmp_path, said.append) as (registered, apply):
            for _ in range(2):
                await apply(proposal(tmp_path, consul, web="10.0.0.9:4000", local="127.0.0.1:9000"))
            await eventually(lambda: set(consul.registered) == {WEB}, "the listener that others reach")
            why = "each machine takes a loopback address for itself"
            (row,) = registered.status()
            assert row["left_out"] == [{"service": "local", "address": "127.0.0.1:9000", "why": why}]
            assert said == [f"local: 127.0.0.1:9000 is not registered in Consul: {why}"]
        assert not any(b"127.0.0.1" in asked.body for asked in consul.asked)


async def test_registers_what_is_served_and_leaves(tmp_path):
    """Services are registered as passing, follow lb.yaml, and are gone when the daemon has ended."""
    plane = FakeDataPlane()
    async with FakeConsul() as consul, daemon(tmp_path, [plane]) as controller:
        async with registering(controller, tmp_path) as (registered, apply):
            await apply(proposal(tmp_path, consul, web="10.0.0.9:4000", db=":5432"))
            both = {f"service:{DB}": "passing", f"service:{WEB}": "passing"}
            await eventually(lambda: consul.checks == both, "registration")
            assert set(consul.registered) == {WEB, DB}
            await eventually(lambda: registered.status()[0]["registered"] == [DB, WEB], "status")
            await apply(proposal(tmp_path, consul, web="10.0.0.9:4000"))
            await eventually(lambda: set(consul.registered) == {WEB}, "the removed service to go")
            await apply(proposal(tmp_path, consul, register=False, web="10.0.0.9:4000"))
            await eventually(lambda: not consul.registered, "the end of registration")
            await eventually(lambda: registered.status() == [], "status to say so")
            await apply(proposal(tmp_path, consul, web="10.0.0.9:4000"))
            await eventually(lambda: set(consul.registered) == {WEB}, "registration to return")
        assert consul.registered == {}


async def test_check_follows_readiness(tmp_path):
    """A data plane that is not ready, or away, makes the check critical."""
    plane, other = FakeDataPlane("a"), FakeDataPlane("b")
    async with (
        FakeConsul() as consul,
        daemon(tmp_path, [plane, other]) as controller,
        registering(controller, tmp_path) as (registered, apply),
    ):
        await apply(proposal(tmp_path, consul, web="10.0.0.9:4000"))

        async def is_(verdict):
            registered.look()
            await eventually(lambda: consul.checks.get(f"service:{WEB}") == verdict, verdict)

        await is_("passing")
        other.ready = False
        await is_("critical")
        other.ready = True
        await is_("passing")
        other.away = True
        await eventually(lambda: not list(controller.fleet.pushers.values())[1].reachable, "the loss")
        await is_("critical")
        other.away = False
        await eventually(lambda: list(controller.fleet.pushers.values())[1].reachable, "the return")
        await is_("passing")


async def test_nothing_is_announced_before_it_is_served(tmp_path):
    """A new service that one data plane does not run yet is not registered; one that runs stays."""
    plane, other = FakeDataPlane("a"), FakeDataPlane("b")
    async with (
        FakeConsul() as consul,
        daemon(tmp_path, [plane, other]) as controller,
        registering(controller, tmp_path) as (registered, apply),
    ):
        await apply(proposal(tmp_path, consul, web="10.0.0.9:4000"))
        await eventually(lambda: set(consul.registered) == {WEB}, "the first service")
        other.away = True
        await apply(proposal(tmp_path, consul, web="10.0.0.9:4000", db=":5432"))
        await eventually(lambda: consul.checks.get(f"service:{WEB}") == "critical", "the loss")
        assert set(consul.registered) == {WEB}
        other.away = False
        await eventually(lambda: other.generation == 2, "the other one to catch up")
        registered.look()
        await eventually(lambda: set(consul.registered) == {WEB, DB}, "the second service")


@pytest.fixture
async def consul():
    """A Consul with nothing in it."""
    async with FakeConsul() as fake:
        yield fake


class Balancer:
    """A balancer with one data plane, which can be ready and serves what it should."""

    def __init__(self, consul, record):
        self.fleet = ReadyFleet()
        self.settings = Consul(address=consul.address, register=True)
        standing = Standing(self.fleet, record)
        self.registering = Registering(self.fleet, standing, lambda _: None, node="edge 1", runtime=RUNTIME)

    def serve(self, **listen):
        """Set what is served: by service, where it listens."""
        self.registering.follow(self.settings, {name: {"listen": where} for name, where in listen.items()})

    def row(self):
        """Return what status says."""
        (row,) = self.registering.status()
        return row

    @contextlib.asynccontextmanager
    async def running(self):
        """Run it, and end it."""
        task = asyncio.create_task(self.registering.run())
        try:
            yield
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_what_the_agent_is_told(consul, no_blocking, tmp_path):
    """What is served is registered with a passing check, and deregistered at the end."""
    balancer = Balancer(consul, DrainFile(tmp_path))
    balancer.serve(web=["10.0.0.9:4000"], db=["0.0.0.0:5432"])
    async with balancer.running():
        await eventually(lambda: len(consul.registered) == 2, "both services")
        web_id = "lb-edge-1-web-10.0.0.9-4000"
        assert consul.registered[web_id]["Port"] == 4000
        assert consul.registered[web_id]["Check"]["TTL"] == "10s"
        await eventually(lambda: balancer.row()["registered"] == ["lb-edge-1-db-5432", web_id], "status")
        assert set(consul.checks.values()) == {"passing"}
        assert balancer.row()["state"] == "ok"
    assert consul.registered == {}


async def test_never_under_the_services_own_name(consul, tmp_path):
    """A balancer of `web` is not an instance of `web`: it would discover itself."""
    balancer = Balancer(consul, DrainFile(tmp_path))
    balancer.serve(web=["10.0.0.9:4000"])
    async with balancer.running():
        await eventually(lambda: consul.registered, "a service")
        assert [body["Name"] for body in consul.registered.values()] == ["lb-web"]


async def test_readiness_is_the_check(consul, tmp_path):
    """The check is critical while the balancer is not ready, from the moment that it says so."""
    balancer = Balancer(consul, DrainFile(tmp_path))
    balancer.fleet.is_ready = False
    balancer.serve(web=["10.0.0.9:4000"])
    async with balancer.running():
        await eventually(lambda: set(consul.checks.values()) == {"critical"}, "a critical check")
        said = {"not ready: data_plane: a: not yet"}
        await eventually(lambda: set(consul.outputs.values()) == said, "the reason")
        balancer.fleet.is_ready = True
        balancer.registering.look()
        await eventually(lambda: set(consul.checks.values()) == {"passing"}, "a passing check")


async def test_an_agent_that_forgot(consul, tmp_path):
    """An agent that lost its memory is told everything again."""
    balancer = Balancer(consul, DrainFile(tmp_path))
    balancer.serve(web=["10.0.0.9:4000"])
    async with balancer.running():
        await eventually(lambda: consul.checks, "a service")
        consul.registered.clear()
        consul.checks.clear()
        balancer.fleet.is_ready = False
        balancer.registering.look()
        await eventually(lambda: set(consul.checks.values()) == {"critical"}, "the service again")
        assert len(consul.registered) == 1


async def test_errors_are_told_and_outlived(consul, tmp_path):
    """An agent that does not answer is asked again, and status says why."""

    async def no(_request):
        return web.Response(status=403, text="Permission denied")

    consul.fault = no
    balancer = Balancer(consul, DrainFile(tmp_path))
    balancer.serve(web=["10.0.0.9:4000"])
    async with balancer.running():
        await eventually(lambda: [row["state"] for row in balancer.registering.status()] == ["denied"], "it")
        consul.fault = None
        await eventually(lambda: balancer.row()["state"] == "ok", "success")
        assert consul.registered


async def test_leaves_what_it_was_about_to_register(consul, tmp_path):
    """What the agent has taken, though its answer never arrived, is deregistered as well."""
    answer, reached = consul._agent, asyncio.Event()

    async def slow(request, rest):
        done = await answer(request, rest)
        if rest == "service/register":
            reached.set()
            await asyncio.Event().wait()
        return done

    consul._agent = slow
    balancer = Balancer(consul, DrainFile(tmp_path))
    balancer.serve(web=["10.0.0.9:4000"])
    async with balancer.running():
        await reached.wait()
    assert consul.registered == {}


async def test_a_silent_agent_does_not_hold_up_the_end(consul, monkeypatch, tmp_path):
    """However many services there are, leaving waits for one call at most."""
    balancer = Balancer(consul, DrainFile(tmp_path))
    balancer.serve(web=[f"10.0.0.9:{port}" for port in range(4000, 4020)])
    async with balancer.running():
        await eventually(lambda: len(consul.checks) == 20, "all of them")
        await eventually(lambda: len(balancer.row()["registered"]) == 20, "all of them to be known")

        async def silent(_request):
            await asyncio.Event().wait()

        consul.fault = silent
        monkeypatch.setattr(registration, "CALL_TIMEOUT_S", 0.05)
        before = len(consul.asked)
    assert len(consul.asked) - before < 4
