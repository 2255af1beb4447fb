"""Discovery in the daemon: followed, remembered, and never a reason to stop serving."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from aiohttp import web

from controlplane.daemon.log import Noticing, source_faults
from controlplane.desired.document import Proposal
from controlplane.discovery.consul.discovery import ConsulDiscovery
from controlplane.errors import HeldBackError
from controlplane.operations.options import ApplyOptions, Origin
from tests.controlplane.fakes import FakeDataPlane
from tests.controlplane.operations.test_controller import daemon
from tests.support.discovery import eventually
from tests.support.fakeconsul import FakeConsul, entry

BY = Origin("op", "apply")
QUICK = ApplyOptions(timeout_s=5.0)
SHORT = ApplyOptions(timeout_s=2.0)


@pytest.fixture
async def consul():
    """A Consul that knows nobody."""
    async with FakeConsul() as fake:
        yield fake


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
        assert [each["origin"] for each in (await controller.accepted.history())["history"]] == [
            "apply",
            "discovery",
        ]
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
        await eventually(lambda: "db" in plane.services, "the other service")
        assert ids(plane) == ["n1/s1"]


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
        why = f"unreachable: {gone.address}: Connection refused"
        assert report["unserved"] == [{"service": "cache", "why": why}]
        assert report["warnings"] == [f"service cache is not served: {why}"]
        await eventually(lambda: set(plane.services) == {"web"}, "the other service to be served")
        async with gone:
            await gone.put("redis", [entry("s1")])
            await eventually(lambda: ids(plane) == ["n1/s1"], "the service to be served")


async def test_another_question_without_an_answer_is_not_served_as_asked(tmp_path):
    """A service whose Consul name is mistyped goes on with the backends that it had, and is named; so is what is asked again."""
    plane = FakeDataPlane()
    async with FakeConsul() as consul, daemon(tmp_path, [plane]) as controller, following(controller):
        await consul.put("redis", [entry("s1")])
        report = await controller.apply(proposal(tmp_path, consul), QUICK, BY)
        assert report["unserved"] == []
        mistyped = {"listen": "127.0.0.1:4001", "discover": {"consul": {"service": "rdeis"}}}
        report = await controller.apply(proposal(tmp_path, consul, cache=mistyped), QUICK, BY)
        (row,) = report["unserved"]
        assert row["service"] == "cache"
        assert "lists no instance of rdeis" in row["why"]
        assert row["why"].endswith("it goes on with the backends that it had")
        assert report["warnings"] == [f"service cache is not served as asked: {row['why']}"]
        assert ids(plane) == ["n1/s1"]


async def test_plan_asks_consul_once(tmp_path):
    """A plan of a service that is not followed yet asks Consul, and changes nothing."""
    plane = FakeDataPlane()
    async with FakeConsul() as consul, daemon(tmp_path, [plane]) as controller:
        await consul.put("redis", [entry("s1")])
        await controller.fleet.wait_looked(5)
        assert (await controller.plan(proposal(tmp_path, consul), QUICK))["dataplanes"][0]["result"] == "ok"
        assert (plane.generation, controller.discovering.active) == (0, False)


FOUR = [entry(f"s{number}", port=80 + number) for number in range(4)]


async def holding(controller, consul, path):
    """Apply a service with four instances, three of which Consul then forgets."""
    await consul.put("redis", FOUR)
    await controller.apply(proposal(path, consul), QUICK, BY)
    await consul.put("redis", FOUR[:1])
    await eventually(lambda: controller.discovering.status()[0]["state"] == "held", "the change to be held")


async def test_force_releases_what_the_guard_holds(tmp_path):
    """A plan with --force shows what goes, the apply has it done when it returns, and the history says who did it."""
    plane, forced = FakeDataPlane(), ApplyOptions(5.0, force=True)
    async with FakeConsul() as consul, daemon(tmp_path, [plane]) as controller, following(controller):
        await holding(controller, consul, tmp_path)
        plane.away = True  # then a plan is the difference to what was applied
        await eventually(
            lambda: not any(each.reachable for each in controller.fleet.pushers.values()), "it to go"
        )
        wanted = proposal(tmp_path, consul)
        assert (await controller.plan(wanted, QUICK))["changes"] == []
        gone = [(each["action"], each["id"]) for each in (await controller.plan(wanted, forced))["changes"]]
        assert gone == [("remove", f"n1/s{number}") for number in (1, 2, 3)]
        assert controller.discovering.status()[0]["state"] == "held"
        plane.away = False
        await eventually(
            lambda: all(each.reachable for each in controller.fleet.pushers.values()), "its return"
        )
        report = await controller.apply(wanted, forced, BY)
        assert (report["converged"], report["warnings"], ids(plane)) == (True, [], ["n1/s0"])
        last = (await controller.accepted.history())["history"][-1]
        assert (last["by"], last["origin"], len(last["changes"])) == ("op", "apply", 3)
        assert controller.discovering.status()[0]["held"] is None


async def test_force_that_is_refused_releases_nothing(tmp_path):
    """Nothing was changed: what is held is held on."""
    plane = FakeDataPlane()
    plane.refuses = "db"
    more = {"db": {"listen": "127.0.0.1:4002", "backends": ["10.0.0.3:1"]}}
    async with FakeConsul() as consul, daemon(tmp_path, [plane]) as controller, following(controller):
        await holding(controller, consul, tmp_path)
        with pytest.raises(HeldBackError, match="no such thing here"):
            await controller.apply(proposal(tmp_path, consul, **more), ApplyOptions(5.0, force=True), BY)
        assert (controller.discovering.status()[0]["state"], len(ids(plane))) == ("held", 4)


async def test_service_without_instances_is_named(tmp_path):
    """Consul has answered, and knows nobody of that name: an apply, a plan, status and the log say so; one is served at once."""
    plane, log = FakeDataPlane(), []
    async with FakeConsul() as consul, daemon(tmp_path, [plane]) as controller, following(controller):
        for ask in (
            controller.plan(proposal(tmp_path, consul), QUICK),
            controller.apply(proposal(tmp_path, consul), QUICK, BY),
        ):
            report = await ask
            (row,) = report["unserved"]
            assert (row["service"], row["why"].partition(";")[0]) == (
                "cache",
                "Consul lists no instance of redis",
            )
            assert row["why"].endswith("consul catalog services")
        assert set(plane.services) == {"web"}
        (source,) = controller.discovering.status()
        assert (source["state"], source["last_error"]) == ("error", row["why"])
        assert controller.unserved() == [row]
        Noticing(log.append).take(source_faults([source]))
        assert log == [f"consul:redis: {row['why']}"]
        await consul.put("redis", [entry("s1", status="critical")])
        await eventually(
            lambda: "1 critical" in controller.unserved()[0]["why"], "the one that cannot be used"
        )
        await consul.put("redis", [entry("s1")])
        await eventually(lambda: ids(plane) == ["n1/s1"], "the service to be served")
        assert controller.unserved() == []


def guarded(path, consul, **guard):
    """Check the same lb.yaml with another guard."""
    document = {**proposal(path, consul).document, "guard": guard}
    return Proposal.of_document(document, "test", path)


async def test_what_may_be_empty_now_is_planned_and_applied_as_such(tmp_path):
    """The guard of the lb.yaml that is asked about decides, not that of the one that is followed."""
    plane = FakeDataPlane()
    async with FakeConsul() as consul, daemon(tmp_path, [plane]) as controller, following(controller):
        assert (await controller.apply(proposal(tmp_path, consul), QUICK, BY))["unserved"]
        wanted = guarded(tmp_path, consul, allow_empty=True)
        for options in (QUICK, ApplyOptions(5.0, force=True)):
            report = await controller.plan(wanted, options)
            assert (report["unserved"], report["warnings"]) == ([], [])
        assert controller.discovering.status()[0]["state"] == "error"
        report = await controller.apply(wanted, QUICK, BY)
        assert (report["converged"], report["unserved"], report["warnings"]) == (True, [], [])
        assert plane.services["cache"]["backends"] == []
        (source,) = controller.discovering.status()
        assert (source["state"], source["source"], controller.unserved()) == ("ok", "consul", [])


async def test_another_guard_is_planned_with_the_same_memory(tmp_path):
    """What is held stays held where the other guard would hold it too, and goes where it would not; a plan changes nothing."""
    plane = FakeDataPlane()
    async with FakeConsul() as consul, daemon(tmp_path, [plane]) as controller, following(controller):
        await consul.put("redis", FOUR)
        await controller.apply(proposal(tmp_path, consul), QUICK, BY)
        await consul.put("redis", FOUR[:2])
        await eventually(lambda: len(ids(plane)) == 2, "half of them to go")
        await consul.put("redis", FOUR[:1])  # half of what is left, but not of the high water
        await eventually(lambda: controller.discovering.status()[0]["state"] == "held", "a hold")
        looking = controller.discovering.look
        found = await looking(guarded(tmp_path, consul, hold="1h", absent_ttl="1h").desired, 10.0)
        assert len(found.backends["cache"]) == 2
        assert found.doubts == {"cache": "1 that Consul no longer lists are kept; --force lets them go"}
        found = await looking(guarded(tmp_path, consul, hold="0s", absent_ttl="0s").desired, 10.0)
        assert ([each.id for each in found.backends["cache"]], found.doubts) == (["n1/s0"], {})
        assert len(ids(plane)) == 2


class TestLook:
    """What an lb.yaml would find, asked of Consul as if it were followed."""

    @staticmethod
    def looking(tmp_path, saved=None):
        """Return a discovery that follows nothing, and what it tells."""
        told = []
        discovering = ConsulDiscovery(lambda: None, told.append)
        discovering.restore(saved or {})
        return discovering, told

    async def test_all_services_at_once(self, tmp_path, consul):
        """Each with its backends, and nothing to doubt."""
        await consul.put("redis", FOUR)
        discovering, _ = self.looking(tmp_path)
        db = {"listen": "127.0.0.1:4002", "discover": {"consul": {"service": "redis", "passing": False}}}
        found = await discovering.look(proposal(tmp_path, consul, db=db).desired, 10.0)
        assert {name: len(backends) for name, backends in found.backends.items()} == {"cache": 4, "db": 4}
        assert (found.doubts, discovering.active) == ({}, False)

    async def test_default_datacenter(self, tmp_path, consul):
        """`consul.datacenter` counts for every service that names none."""
        await consul.put("dc2/redis", FOUR[:1])
        document = {**proposal(tmp_path, consul).document}
        document["consul"] = {**document["consul"], "datacenter": "dc2"}
        wanted = Proposal.of_document(document, "test", tmp_path)
        found = await self.looking(tmp_path)[0].look(wanted.desired, 10.0)
        assert [each.id for each in found.backends["cache"]] == ["n1/s0"]
        assert {asked.query["dc"] for asked in consul.asked} == {"dc2"}

    async def test_emptiness(self, tmp_path, consul):
        """Without a memory no instances are no answer, unless they are allowed."""
        found = await self.looking(tmp_path)[0].look(proposal(tmp_path, consul).desired, 10.0)
        assert (found.backends, list(found.doubts)) == ({}, ["cache"])
        document = {**proposal(tmp_path, consul).document, "guard": {"allow_empty": True}}
        found = await self.looking(tmp_path)[0].look(
            Proposal.of_document(document, "test", tmp_path).desired, 10.0
        )
        assert (dict(found.backends), found.doubts) == ({"cache": ()}, {})

    async def test_passing_fault_is_waited_for(self, tmp_path, consul):
        """A lasting one is told when the time is up."""
        await consul.put("redis", FOUR)
        faults = [True, True]

        async def fault(request):
            if faults:
                faults.pop()
                return web.Response(status=500, text="No cluster leader")
            return await consul._health(request, "redis")

        consul.fault = fault
        found = await self.looking(tmp_path)[0].look(proposal(tmp_path, consul).desired, 20.0)
        assert len(found.backends["cache"]) == 4
        faults[:] = [True] * 1000
        found = await self.looking(tmp_path)[0].look(proposal(tmp_path, consul).desired, 0.1)
        assert (found.backends, found.doubts) == ({}, {"cache": "failed: status 500: No cluster leader"})

    async def test_what_only_a_person_can_mend_is_told_at_once(self, tmp_path, consul):
        """Nobody waits for an hour for a token."""
        consul.token = "needed"  # noqa: S105 - of a test
        found = await self.looking(tmp_path)[0].look(proposal(tmp_path, consul).desired, 3600.0)
        assert found.doubts["cache"].startswith("denied: ")

    async def test_memory_counts_as_if_it_were_followed(self, tmp_path, consul):
        """What an earlier apply has found is guarded, stands in for a silent Consul, and is told of."""
        await consul.put("redis", FOUR)
        saved = (await self.looking(tmp_path)[0].look(proposal(tmp_path, consul).desired, 10.0)).saved
        await consul.put("redis", FOUR[:1])
        discovering, _ = self.looking(tmp_path, saved)
        found = await discovering.look(proposal(tmp_path, consul).desired, 10.0)
        assert len(found.backends["cache"]) == 4
        assert found.doubts == {"cache": "3 that Consul no longer lists are kept; --force lets them go"}
        released = await discovering.look(proposal(tmp_path, consul).desired, 10.0, released=True)
        assert [each.id for each in released.backends["cache"]] == ["n1/s0"]

        async def silent(_request):
            return web.Response(status=500, text="No cluster leader")

        consul.fault = silent
        found = await discovering.look(proposal(tmp_path, consul).desired, 3600.0)
        assert (len(found.backends["cache"]), list(found.doubts)) == (4, ["cache"])


async def test_nothing_needs_consul_without_discovery(tmp_path):
    """Only a service that asks for it loads the library."""
    document = {"version": 1, "services": {"web": {"listen": "127.0.0.1:4000", "backends": ["10.0.0.1:1"]}}}
    async with daemon(tmp_path, [FakeDataPlane()]) as controller:
        await controller.apply(Proposal.of_document(document, "test", tmp_path), QUICK, BY)
        assert not controller.discovering.active
        assert controller.discovering.status() == []


async def test_what_is_not_followed_is_forgotten(tmp_path, consul):
    """Also by who has only the memory of an earlier life: a service that asks again later begins anew."""
    listed = {"version": 1, "services": {"web": {"listen": "127.0.0.1:4000", "backends": ["10.0.0.1:1"]}}}
    await consul.put("redis", [entry("s1")])
    discovering = ConsulDiscovery(lambda: None, lambda _: None)
    found = await discovering.look(proposal(tmp_path, consul).desired, 10.0)
    discovering.follow(proposal(tmp_path, consul).desired, found)
    later = ConsulDiscovery(lambda: None, lambda _: None)
    later.restore(discovering.saved())
    for each in (discovering, later):
        assert each.saved()["pools"]
        each.follow(Proposal.of_document(listed, "test", tmp_path).desired)
        assert not each.saved().get("pools")


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
