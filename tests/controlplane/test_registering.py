"""Registration in the daemon: what every data plane serves, as ready as they are, and gone when the daemon goes."""

from __future__ import annotations

import asyncio
import contextlib

from controlplane.acceptance import ApplyOptions, Origin
from controlplane.proposal import Proposal
from controlplane.registering import Registering, served_by
from controlplane.sources.consul_registration import Served
from tests.controlplane.fakes import FakeDataPlane
from tests.controlplane.test_controller import daemon
from tests.support.discovery import eventually
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
async def registering(controller, tmp_path):
    """Register beside a controller, as the daemon does."""
    registered = Registering(controller.fleet, tmp_path, lambda _: None, node="edge")
    task = asyncio.create_task(registered.run())

    async def apply(wanted):
        await controller.apply(wanted, QUICK, BY)
        registered.follow(controller.desired.consul, controller.state.services)

    try:
        yield registered, apply
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_listeners_that_others_can_reach():
    """Every TCP listener is registered once; one on all addresses has the agent's; a Unix socket has none."""
    services = {
        "web": {"listen": ["10.0.0.9:4000", "[::1]:4001", "unix:/run/web.sock"]},
        "db": {"listen": ["0.0.0.0:5432", "[::]:5432"]},
    }
    assert served_by(services) == {
        Served("web", "10.0.0.9", 4000),
        Served("web", "::1", 4001),
        Served("db", "", 5432),
    }


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
