"""Discovery in the daemon: followed, remembered, and never a reason to stop serving."""

from __future__ import annotations

import asyncio
import contextlib

from controlplane.acceptance import ApplyOptions, Origin
from controlplane.proposal import Proposal
from tests.controlplane.fakes import FakeDataPlane
from tests.controlplane.test_controller import daemon
from tests.support.discovery import eventually
from tests.support.fakeconsul import FakeConsul, entry

BY = Origin("op", "apply")
QUICK = ApplyOptions(timeout_s=5.0)
SHORT = ApplyOptions(timeout_s=0.4)


def proposal(tmp_path, consul, **more):
    """Check an lb.yaml with one listed and one discovered service."""
    document = {
        "version": 1,
        "consul": {"address": consul.address},
        "services": {
            "web": {"listen": "127.0.0.1:4000", "backends": ["10.0.0.1:1"]},
            "cache": {"listen": "127.0.0.1:4001", "discover": {"consul": {"service": "redis"}}},
            **more,
        },
    }
    return Proposal.of_document(document, "test", tmp_path)


def ids(plane):
    """Return the ids of the backends of `cache` that a data plane runs."""
    return [each["id"] for each in plane.services.get("cache", {"backends": []})["backends"]]


@contextlib.asynccontextmanager
async def following(controller):
    """Run discovery beside a controller."""
    task = asyncio.create_task(controller.discovering.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_changes_in_consul_are_new_generations(tmp_path):
    """What Consul says is pushed, and the history says that it was Consul."""
    plane = FakeDataPlane()
    async with FakeConsul() as consul, daemon(tmp_path, [plane]) as controller, following(controller):
        await consul.put("redis", [entry("s1")])
        report = await controller.apply(proposal(tmp_path, consul), QUICK, BY)
        assert (report["converged"], report["warnings"], ids(plane)) == (True, [], ["n1/s1"])
        await consul.put("redis", [entry("s1"), entry("s2", port=81)])
        await eventually(lambda: ids(plane) == ["n1/s1", "n1/s2"], "the new instance")
        assert [each["origin"] for each in (await controller.history())["history"]] == ["apply", "discovery"]
        assert controller.discovering.status()[0]["state"] == "ok"


async def test_override_survives_what_consul_does(tmp_path):
    """A discovered backend that goes and returns meets its override again."""
    plane = FakeDataPlane()
    both = [entry("s1"), entry("s2", port=81), entry("s3", port=82)]
    async with FakeConsul() as consul, daemon(tmp_path, [plane]) as controller, following(controller):
        await consul.put("redis", both)
        await controller.apply(proposal(tmp_path, consul), QUICK, BY)
        await controller.patch("cache", "n1/s1", {"state": "drain"}, by="op", timeout_s=5)
        await consul.put("redis", both[1:])
        await eventually(lambda: ids(plane) == ["n1/s2", "n1/s3"], "the instance to go")
        await consul.put("redis", both)
        place = ("cache", "n1/s1", "state")
        await eventually(lambda: plane.overrides.get(place) == "drain", "the override to return")


async def test_start_without_consul_goes_on_with_what_was_known(tmp_path):
    """A new daemon and a data plane that lost everything serve the last good backends while Consul is away."""
    plane = FakeDataPlane()
    async with FakeConsul() as consul, daemon(tmp_path, [plane]) as controller, following(controller):
        await consul.put("redis", [entry("s1")])
        await controller.apply(proposal(tmp_path, consul), QUICK, BY)
    plane.restart(keeps=False)
    async with daemon(tmp_path, [plane]) as controller, following(controller):
        await eventually(lambda: ids(plane) == ["n1/s1"], "the last good backends")
        # Even an apply goes through: it changes another service and keeps this one.
        more = {"db": {"listen": "127.0.0.1:4002", "backends": ["10.0.0.3:1"]}}
        await controller.apply(proposal(tmp_path, consul, **more), SHORT, BY)
        assert (ids(plane), "db" in plane.services) == (["n1/s1"], True)


async def test_start_without_state_and_consul_keeps_what_data_planes_run(tmp_path):
    """With an empty state directory the running snapshot stands in."""
    plane = FakeDataPlane()
    async with FakeConsul() as consul, daemon(tmp_path / "one", [plane]) as controller, following(controller):
        await consul.put("redis", [entry("s1")])
        await controller.apply(proposal(tmp_path, consul), QUICK, BY)
    async with daemon(tmp_path / "two", [plane]) as controller, following(controller):
        await controller.apply(proposal(tmp_path, consul), SHORT, BY)
        assert ids(plane) == ["n1/s1"]


async def test_service_of_which_nothing_is_known_is_said_and_the_others_are_served(tmp_path):
    """No listener is opened for it until Consul answers."""
    plane = FakeDataPlane()
    async with FakeConsul() as consul:
        gone = consul
    async with daemon(tmp_path, [plane]) as controller, following(controller):
        report = await controller.apply(proposal(tmp_path, gone), SHORT, BY)
        assert report["warnings"] == ["not served until Consul answers: cache"]
        assert set(plane.services) == {"web"}
        async with gone:
            await gone.put("redis", [entry("s1")])
            await eventually(lambda: ids(plane) == ["n1/s1"], "the service to be served")


async def test_plan_asks_consul_once(tmp_path):
    """A plan of a service that is not followed yet asks Consul, and changes nothing."""
    plane = FakeDataPlane()
    async with FakeConsul() as consul, daemon(tmp_path, [plane]) as controller:
        await consul.put("redis", [entry("s1")])
        await controller.fleet.wait_looked(5)
        assert (await controller.plan(proposal(tmp_path, consul)))["dataplanes"][0]["result"] == "ok"
        assert (plane.generation, controller.discovering.active) == (0, False)


async def test_force_releases_what_the_guard_holds(tmp_path):
    """A shrink beyond the guard is held, shown, and goes through with --force."""
    plane = FakeDataPlane()
    many = [entry(f"s{number}", port=80 + number) for number in range(4)]
    async with FakeConsul() as consul, daemon(tmp_path, [plane]) as controller, following(controller):
        await consul.put("redis", many)
        await controller.apply(proposal(tmp_path, consul), QUICK, BY)
        await consul.put("redis", many[:1])
        await eventually(
            lambda: controller.discovering.status()[0]["state"] == "held", "the change to be held"
        )
        assert len(ids(plane)) == 4
        await controller.apply(proposal(tmp_path, consul), ApplyOptions(5.0, force=True), BY)
        await eventually(lambda: ids(plane) == ["n1/s0"], "the change to be released")


async def test_nothing_needs_consul_without_discovery(tmp_path):
    """Only a service that asks for it loads the library."""
    document = {"version": 1, "services": {"web": {"listen": "127.0.0.1:4000", "backends": ["10.0.0.1:1"]}}}
    async with daemon(tmp_path, [FakeDataPlane()]) as controller:
        await controller.apply(Proposal.of_document(document, "test", tmp_path), QUICK, BY)
        assert not controller.discovering.active
        assert controller.discovering.status() == []


async def test_our_own_listener_in_consul(tmp_path):
    """An instance that is one of our listeners is left out, counted and shown with the reason; the others serve."""
    plane = FakeDataPlane()
    ours = entry("ours", address="127.0.0.1", port=4001)
    async with FakeConsul() as consul, daemon(tmp_path, [plane]) as controller, following(controller):
        await consul.put("redis", [entry("s1"), ours])
        report = await controller.apply(proposal(tmp_path, consul), QUICK, BY)
        why = "127.0.0.1:4001 is where this service itself listens: each connection would come back, for ever"
        assert report["warnings"] == [f"service cache does not use n1/ours: {why}"]
        assert ids(plane) == ["n1/s1"]
        (source,) = controller.discovering.status()
        assert source["rejected"] == [{"id": "n1/ours", "why": why}]
        assert source["counts"]["rejected"] == 1
        # What comes later is judged as well, though it changes nothing for the data planes.
        await consul.put("redis", [entry("s1"), ours, entry("again", address="127.0.0.1", port=4001)])
        await eventually(lambda: len(controller.discovering.status()[0]["rejected"]) == 2, "the second one")
        assert ids(plane) == ["n1/s1"]


async def test_a_listener_of_ours_that_leads_back(tmp_path):
    """A service may find another one of ours in Consul, but not one that leads back to it."""
    plane = FakeDataPlane()
    back = {"listen": "127.0.0.1:4002", "backends": ["127.0.0.1:4001"]}
    on = {"listen": "127.0.0.1:4003", "backends": ["10.0.0.7:1"]}
    async with FakeConsul() as consul, daemon(tmp_path, [plane]) as controller, following(controller):
        listeners = [entry(str(port), address="127.0.0.1", port=port) for port in (4002, 4003)]
        await consul.put("redis", listeners)
        await controller.apply(proposal(tmp_path, consul, back=back, on=on), QUICK, BY)
        assert ids(plane) == ["n1/4003"]
        (rejected,) = controller.discovering.status()[0]["rejected"]
        assert rejected["id"] == "n1/4002"
        assert "service back listens, which leads back here (cache -> back -> cache)" in rejected["why"]
