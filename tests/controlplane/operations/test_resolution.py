"""What an lb.yaml comes to: with what discovery finds, with what ran before, and with what is said of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.core.compile import Compiled
from controlplane.core.instances import Remark
from controlplane.desired.document import Proposal
from controlplane.discovery.consul.discovery import Found
from controlplane.errors import InputError, LateError, RefusedError
from controlplane.operations.options import ApplyOptions
from controlplane.operations.resolution import Resolving, not_as_asked, unserved, warnings_of
from controlplane.store import State
from schemas.loops import ANYWHERE, Machine
from schemas.snapshot import Backend
from tests.controlplane.fakes import FakeDataPlane

WHY = "Consul has not answered"
CONSUL = {"consul": {"service": "redis"}}
ONE = Backend(id="n1/s1", address="10.0.0.1:1")
HELD = [ONE.model_dump(mode="json")]


def proposal(*, host="127.0.0.1", datacenter=None, **services):
    """Check an lb.yaml with these services: backends, or what is asked of discovery."""
    made = {
        name: {
            "listen": f"{host}:{4000 + number}",
            **({"backends": each} if isinstance(each, list) else {"discover": each}),
        }
        for number, (name, each) in enumerate(services.items())
    }
    where = {} if datacenter is None else {"datacenter": datacenter}
    return Proposal.of_document({"version": 1, "services": made, "consul": where}, "test", Path())


class Planes:
    """A fleet of data planes in memory that all answer at once, on this machine or another."""

    def __init__(self, *planes, machine=ANYWHERE):
        self._planes = planes
        self._machine = machine
        self.tried = None

    async def wait_looked(self, timeout_s):
        """All have been."""

    def machine(self):
        """Return where they are."""
        return self._machine

    async def services(self):
        """Return what the newest runs."""
        return max(self._planes, key=lambda each: each.generation).services

    async def dry_run(self, call, timeout_s):
        """Ask each."""
        self.tried = call
        answers = {}
        for each in self._planes:
            try:
                answers[each.endpoint] = await each.ask(call, timeout_s=timeout_s)
            except (LateError, RefusedError) as error:
                answers[each.endpoint] = error
        return answers


class Finds:
    """A discovery that has found this; what it is asked is remembered."""

    def __init__(self, found=None):
        self._found = found or Found()
        self.asked = None

    async def look(self, wanted, timeout_s, *, released=False):
        """Tell it."""
        self.asked = (wanted, timeout_s, released)
        return self._found


class Taken:
    """What was accepted last."""

    def __init__(self, document=None, services=None):
        self.state = State(document=document, services=services or {})

    async def services(self):
        """Return what runs."""
        return self.state.services


async def plan(wanted, *, found=None, planes=None, taken=None, options=None):
    """Plan it."""
    fleet = planes or Planes(FakeDataPlane())
    return await Resolving(fleet, Finds(found)).plan(wanted, options or ApplyOptions(), taken or Taken())


async def test_a_plan_is_the_snapshot_and_what_data_planes_say():
    """Everybody is asked about the same content, by a generation that none of them is ahead of."""
    ahead, other = FakeDataPlane("a"), FakeDataPlane("b")
    ahead.generation = 2**40
    planned = await plan(proposal(web=["10.0.0.1:1"]), planes=Planes(ahead, other))
    assert [row["result"] for row in planned.report["dataplanes"]] == ["ok", "ok"]
    assert planned.refusals == []
    assert planned.report["unserved"] == planned.report["warnings"] == []
    assert [each["address"] for each in planned.compiled.services["web"]["backends"]] == ["10.0.0.1:1"]


async def test_who_would_refuse_is_told_from_who_does_not_answer():
    """Only a refusal says something about the content."""
    refuses, hangs = FakeDataPlane("a"), FakeDataPlane("b")
    refuses.refuses, hangs.hangs = "web", True
    planned = await plan(proposal(web=[]), planes=Planes(refuses, hangs))
    assert [row["result"] for row in planned.report["dataplanes"]] == ["refused", "late"]
    assert [each.name for each in planned.refusals] == ["a"]


async def test_a_loop_is_refused_where_it_is_one():
    """On this machine a backend leads back; on another the same content may be right, and nothing is known of it."""
    looped = proposal(host="0.0.0.0", web=["192.0.2.7:4000"])
    here = Machine(lambda address: address == "192.0.2.7", str)
    planes = Planes(FakeDataPlane(), machine=here)
    with pytest.raises(InputError):
        await plan(looped, planes=planes)
    assert planes.tried is None
    await plan(looped)


async def test_discovery_is_asked_once_and_with_patience():
    """What an operator forces is asked for without the guard's memory; others wait less than their deadline."""
    finds = Finds(Found(backends={"web": [ONE]}))
    options = ApplyOptions(timeout_s=3.0, force=True)
    wanted = proposal(web=CONSUL)
    planned = await Resolving(Planes(FakeDataPlane()), finds).plan(wanted, options, Taken())
    asked, timeout_s, released = finds.asked
    assert (asked, released) == (wanted.desired, True)
    assert 0 < timeout_s < options.timeout_s
    assert planned.compiled.services["web"]["backends"] == HELD


async def test_what_ran_stands_in_for_discovery():
    """It is told, and nothing of it is lost."""
    ran = Taken(proposal(web=CONSUL).document, {"web": {"backends": HELD}})
    planned = await plan(proposal(web=CONSUL), found=Found(doubts={"web": WHY}), taken=ran)
    assert planned.compiled.services["web"]["backends"] == HELD
    assert planned.report["unserved"] == []
    assert planned.report["warnings"] == [f"service web goes on with the backends that it had: {WHY}"]


async def test_another_question_is_not_served_as_asked():
    """The backends of the one before stand in, and it is said that they are none of this one's."""
    ran = Taken(proposal(web={"consul": {"service": "other"}}).document, {"web": {"backends": HELD}})
    planned = await plan(proposal(web=CONSUL), found=Found(doubts={"web": WHY}), taken=ran)
    why = f"{WHY}; until then it goes on with the backends that it had"
    assert planned.report["unserved"] == [{"service": "web", "why": why}]
    assert planned.report["warnings"] == [f"service web is not served as asked: {why}"]


async def test_another_datacenter_is_another_question():
    """The same service elsewhere is not the same backends."""
    ran = Taken(proposal(web=CONSUL).document, {"web": {"backends": HELD}})
    planned = await plan(proposal(datacenter="dc2", web=CONSUL), found=Found(doubts={"web": WHY}), taken=ran)
    assert [each["service"] for each in planned.report["unserved"]] == ["web"]


async def test_of_what_nothing_is_known_nothing_is_served():
    """It is said that it is not, and why."""
    planned = await plan(proposal(web=CONSUL, db=[]), found=Found(doubts={"web": WHY}))
    assert list(planned.compiled.services) == ["db"]
    assert planned.report["unserved"] == [{"service": "web", "why": WHY}]
    assert planned.report["warnings"] == [f"service web is not served: {WHY}"]


async def test_a_new_state_directory_takes_over_what_runs():
    """Data planes are asked what they run only if neither we nor discovery know it."""
    plane = FakeDataPlane()
    plane.services = {"web": {"backends": HELD}}
    resolving = Resolving(Planes(plane), Finds())
    compiled = await resolving.compile(proposal(web=CONSUL), {}, {}, None)
    assert compiled.services["web"]["backends"] == HELD
    for discovered, ran in (({"web": []}, {}), ({}, {"web": {"backends": []}})):
        compiled = await resolving.compile(proposal(web=CONSUL), discovered, ran, None)
        assert compiled.services["web"]["backends"] == []


def test_who_is_not_served_and_why():
    """In the order of their names; without a reason it is that nobody has answered."""
    assert unserved(["web", "db"], {"web": "no such service"}) == [
        {"service": "db", "why": WHY},
        {"service": "web", "why": "no such service"},
    ]


def test_what_is_found_and_not_used_is_said():
    """Beside what is not served."""
    rejected = {"web": (Remark("n1/s1", "leads back"),)}
    compiled = Compiled({}, "h", ("db", "web"), waiting=("db",), rejected=rejected)
    rows = not_as_asked(compiled, Found(), frozenset())
    assert warnings_of(compiled, Found(), rows) == [
        f"service db is not served: {WHY}",
        "service web does not use n1/s1: leads back",
    ]
