"""What this node tells the others: what it runs, whether it is ready, and what its clients met."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from controlplane.cluster.membership import Place
from controlplane.core.canary import Phase
from controlplane.core.drain import Turn
from controlplane.core.node_record import Draining, NodeRecord
from controlplane.daemon import node_facts
from controlplane.daemon.desired_watch import WatchedFile
from controlplane.daemon.followed_key import FollowedKey
from controlplane.daemon.node_facts import VERSION, NodeFacts, place_of
from controlplane.daemon.standing import Standing
from controlplane.daemon.status import Observer
from controlplane.discovery.consul.key import KeySource
from controlplane.discovery.consul.settings import SettingsError, with_address
from controlplane.operations.drain_file import DrainFile
from controlplane.operations.options import ApplyOptions, Origin
from schemas.desired import load_desired
from schemas.variables import Known, Variables
from tests.controlplane.fakes import FakeDataPlane
from tests.controlplane.operations.test_controller import daemon, document, proposal, until

BY = Origin("op", "apply")
QUICK = ApplyOptions(timeout_s=5.0)
PLACE = Place("edge", "n1", "http://10.0.0.1:9100", with_address("127.0.0.1:8500"))
RAW = json.dumps(document()).encode()
DIGEST = hashlib.sha256(RAW).hexdigest()


def desired(**more):
    """Check an lb.yaml with a cluster."""
    return load_desired(json.dumps({**document(), **more}).encode())


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Count at each look."""
    monkeypatch.setattr(node_facts, "NUMBERS_S", 0.0)


def watched(controller):
    """Watch a key, which nobody asks."""
    return WatchedFile(KeySource("lb/edge", with_address("127.0.0.1:1")), controller, lambda _: None)


@contextlib.asynccontextmanager
async def node(directory, *planes, variables=lambda _: {}):
    """Have a node of these data planes; yields what tells of it, its controller, and its watched key."""
    by_endpoint = {each.endpoint: each for each in planes}
    known = Variables({"NODE_NAME": Known("n1", "a test")})
    async with daemon(directory, planes, look=lambda *_: known) as controller:
        observer = Observer(controller, list, by_endpoint.__getitem__)
        file = watched(controller)
        standing = Standing(controller.fleet, DrainFile(directory))
        yield NodeFacts(controller, observer, standing, file, variables), controller, file


def test_a_place_is_what_lb_yaml_says():
    """The agent of its section `consul`; without one, the environment's."""
    place = place_of(
        desired(
            cluster={"name": "edge", "node": "n1", "address": "http://10.0.0.1:9100"},
            consul={"address": "http://c:1"},
        )
    )
    assert place == replace(PLACE, agent=with_address("http://c:1"))
    place = place_of(desired(cluster={"name": "edge"}), {"CONSUL_HTTP_ADDR": "d:2"})
    assert place.agent.address() == "http://d:2"
    assert place.node
    with pytest.raises(SettingsError):
        place_of(desired(cluster={"name": "edge"}), {"CONSUL_HTTP_ADDR": "ftp://d"})


def test_without_a_cluster_there_is_no_place():
    """Nor before anything was taken."""
    assert place_of(None) is None
    assert place_of(desired()) is None


async def test_it_tells_what_it_has_taken_and_runs(tmp_path):
    """The watched content, and that all data planes run it."""
    async with node(tmp_path, FakeDataPlane()) as (facts, controller, file):
        first = await facts.tell(PLACE)
        assert (first.content, first.converged, first.generation) == (None, False, 0)
        await file.content(RAW, False)
        await until(
            lambda: all(each.confirms(controller.fleet.wish) for each in controller.fleet.pushers.values())
        )
        told = await facts.tell(PLACE)
        assert (told.node, told.address, told.key, told.content) == ("n1", PLACE.address, "lb/edge", DIGEST)
        assert (told.generation, told.hash, told.converged) == (1, controller.accepted.state.hash, True)
        assert (told.livelb, told.error, told.canary) == (VERSION, None, None)
        assert facts.wanted() == {"lb/edge": DIGEST}


async def test_what_is_refused_is_told_with_its_reason(tmp_path):
    """What ran before is its content, and what the key says is known all the same."""
    async with node(tmp_path, FakeDataPlane()) as (facts, _, file):
        await file.content(RAW, False)
        await file.content(b"version: 2", False)
        told = await facts.tell(PLACE)
        assert told.content == DIGEST
        assert "version" in told.error
        assert facts.wanted() == {"lb/edge": hashlib.sha256(b"version: 2").hexdigest()}


async def test_what_somebody_has_applied_is_nobodys_content(tmp_path):
    """It runs something that no other node can have taken."""
    async with node(tmp_path, FakeDataPlane()) as (facts, controller, file):
        await file.content(RAW, False)
        await controller.apply(proposal(weight=7), QUICK, BY)
        assert (await facts.tell(PLACE)).content is None


async def test_a_data_plane_that_is_behind_is_not_converged(tmp_path):
    """One of two refuses it."""
    one, two = FakeDataPlane("a"), FakeDataPlane("b")
    async with node(tmp_path, one, two) as (facts, controller, file):
        await file.content(RAW, False)
        two.away = True
        await until(lambda: not all(each.reachable for each in controller.fleet.pushers.values()))
        assert not (await facts.tell(PLACE)).converged


async def test_a_drain_is_told(tmp_path):
    """How far it has got, whose word it is, and since when; nothing of a node that is enabled."""
    async with node(tmp_path, FakeDataPlane("a")) as (facts, _, _):
        record = DrainFile(tmp_path)
        assert (await facts.tell(PLACE)).drain is None
        drain = record.turn(Turn.LOWER, "ann")
        told = await facts.tell(PLACE)
        assert told.drain == Draining("lowered", "ann", drain.since)
        assert NodeRecord.parse(told.encode()).drain == told.drain
        record.turn(Turn.WITHDRAW, "ann")
        told = await facts.tell(PLACE)
        assert not told.ready
        assert told.reason.startswith("withdrawn: by ann since ")


async def test_readiness_has_its_reason_and_its_time(tmp_path):
    """Every data plane has to be ready; without one nobody is."""
    async with node(tmp_path) as (facts, _, _file):
        told = await facts.tell(PLACE)
        assert (told.ready, told.reason) == (False, "no_data_plane: none was found")
    one, two = FakeDataPlane("a"), FakeDataPlane("b")
    async with node(tmp_path, one, two) as (facts, controller, _file):
        await until(lambda: len(controller.fleet.running()) == 2)
        first = await facts.tell(PLACE)
        assert (first.ready, first.reason) == (True, "")
        assert (await facts.tell(PLACE)).since == first.since
        two.ready = False
        told = await facts.tell(PLACE)
        assert (told.ready, told.reason) == (False, "data_plane: b: ending")
        assert told.since >= first.since
        one.away = True
        await until(lambda: not all(each.reachable for each in controller.fleet.pushers.values()))
        assert (await facts.tell(PLACE)).reason.startswith("data_plane: a: unreachable")


async def test_numbers_are_the_data_planes(tmp_path, monkeypatch):
    """Summed, and no older than NUMBERS_S; sticky tables as they say."""
    planes = [FakeDataPlane("a"), FakeDataPlane("b")]

    async def statuses(_age_s):
        totals = {"totals": {"connections": 3, "harmed": 1}, "backends": []}
        return [
            {"instance": name, "services": {"web": {"active": 2, "table_hash": table, **totals}}}
            for name, table in (("a", "t1"), ("b", "t2"))
        ]

    async with node(tmp_path, *planes) as (facts, controller, _file):
        await until(lambda: len(controller.fleet.running()) == len(planes))
        monkeypatch.setattr(facts._observer, "statuses", statuses)
        told = await facts.tell(PLACE)
        assert (told.active, told.table_hashes) == (4, {"web": "t1+t2"})
        assert (told.outcomes["web"].connections, told.outcomes["web"].failures) == (6, 2)
        monkeypatch.setattr(node_facts, "NUMBERS_S", 1000.0)
        monkeypatch.setattr(facts._observer, "statuses", None)
        assert (await facts.tell(PLACE)).active == 4


async def test_a_canary_is_told(tmp_path):
    """While it runs here, this node does not know what the key itself says."""
    async with node(tmp_path) as (facts, _, file):
        home = FollowedKey(file.home, lambda: "n1", None, on_event=lambda _: None, log=lambda _: None)
        file.home = home
        await file.content(RAW, False)
        assert facts.wanted() == {"lb/edge": DIGEST}
        home._rule = SimpleNamespace(memory=SimpleNamespace(id="c1"), phase=Phase.RUNNING)
        assert (await facts.tell(PLACE)).canary == "c1"
        assert facts.wanted() == {}


async def test_who_follows_a_file_has_no_key(tmp_path):
    """Nothing is known of any."""
    async with daemon(tmp_path, []) as controller:
        observer = Observer(controller, list, lambda _: None)
        facts = NodeFacts(controller, observer, Standing(controller.fleet, DrainFile(tmp_path)), None)
        assert (await facts.tell(PLACE)).key is None
        assert facts.wanted() == {}


async def test_variables_and_share_are_told(tmp_path):
    """What the node's lb.yaml can take from it, looked up until its agent has answered; and by how many limits are divided, if some are."""
    asked = []

    def variables(consul):
        asked.append(consul)
        return {"NODE_NAME": "n1"} if len(asked) == 1 else {"NODE_NAME": "n1", "NODE_IP": "10.0.0.1"}

    async with node(tmp_path, FakeDataPlane(), variables=variables) as (facts, controller, file):
        await file.content(RAW, False)
        assert (await facts.tell(PLACE)).variables == {"NODE_NAME": "n1"}
        for _ in range(3):
            assert (await facts.tell(PLACE)).variables == {"NODE_NAME": "n1", "NODE_IP": "10.0.0.1"}
        assert asked == [None, None]
        assert (await facts.tell(PLACE)).share is None
        told = document()
        told["services"]["web"]["limits"] = {"connections": 10, "scope": "cluster"}
        told |= {"consul": {"address": "http://c:1"}, "cluster": {"name": "edge", "node": "${NODE_NAME}"}}
        await file.content(json.dumps(told).encode(), False)
        controller.news.shared(3)
        await until(lambda: controller.accepted.state.share == 3)
        assert (await facts.tell(PLACE)).share == 3
        assert asked[-1] == {"address": "http://c:1"}
        assert (await facts.tell(PLACE)).uses == ("NODE_NAME",)


async def test_a_new_table_is_told_with_the_new_hash(tmp_path, monkeypatch):
    """Numbers can wait; which table a sticky service has cannot, once the data plane runs it."""
    plane = FakeDataPlane()
    async with node(tmp_path, plane) as (facts, controller, file):
        monkeypatch.setattr(node_facts, "NUMBERS_S", 1000.0)
        await facts.tell(PLACE)
        asked = plane.asked.count(("GET", "/v1/status"))
        await file.content(RAW, False)
        await until(lambda: controller.fleet.running() == [(1, controller.accepted.state.hash)])
        await facts.tell(PLACE)
        assert plane.asked.count(("GET", "/v1/status")) == asked + 1
        await facts.tell(PLACE)
        assert plane.asked.count(("GET", "/v1/status")) == asked + 1
