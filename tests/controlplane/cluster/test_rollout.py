"""A canary from its beginning to its end: promoted, taken back, refused, gone on with; whatever is cut off in between."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from aiohttp import web

from controlplane.cluster import looking, rollout
from controlplane.cluster.canaries import Ending, take_back
from controlplane.cluster.looking import Keys, Looker
from controlplane.cluster.rollout import Order, Rollout
from controlplane.core.canary_record import MAX_CONTENT_BYTES
from controlplane.core.verdict import LEAST_CONNECTIONS
from controlplane.discovery.consul.client import connected
from controlplane.discovery.consul.settings import ConsulError, with_address
from controlplane.errors import HeldBackError, InputError
from tests.controlplane.cluster.nodes import FakeNode, live, record_of
from tests.support.discovery import eventually
from tests.support.fakeconsul import FakeConsul

OLD, NEW = b"version: 1 # old", b"version: 1 # new"
OBSERVE_S = 0.2


class Bed:
    """A Consul and three nodes that follow the key `lb`."""

    def __init__(self, consul, client):
        self.consul = consul
        self.client = client
        self.keys = Keys("lb")
        self.nodes = [FakeNode(consul, name) for name in ("n1", "n2", "n3")]
        self.said = []
        self.stop = asyncio.Event()
        consul.keys["lb"] = (OLD, 3)

    def looker(self):
        """Return what a command looks with."""
        return Looker(self.client, "edge", self.keys, self.said.append, self.stop)

    def rollout(self, nodes=1, **options):
        """Return a command's canary."""
        options = {"observe_s": OBSERVE_S, "taking_s": 20.0, **options}
        return Rollout(self.looker(), Order(options.pop("raw", NEW), nodes, by="ann", **options)).run()

    def contents(self):
        """Return what the nodes have taken, each in its order."""
        return [each.taken for each in self.nodes]

    async def says(self, words):
        """Wait until a command has said something."""
        await eventually(lambda: any(words in line for line in self.said), lambda: f"{words}: {self.said}")

    def cut(self):
        """Have Consul answer nobody any more but with an error; the nodes go on."""

        async def fault(_request):
            return web.Response(status=500, text="No cluster leader")

        self.consul.fault = fault

    async def expire_locks(self):
        """End every session, as its TTL does when its command is dead."""
        for session in list(self.consul.sessions):
            await self.consul.expire(session)


@pytest.fixture
async def bed(monkeypatch):
    """All of it, with nodes that live."""
    monkeypatch.setattr(looking, "POLL_S", 0.01)
    async with FakeConsul() as consul, connected(with_address(consul.address)) as client:
        made = Bed(consul, client)
        task = asyncio.create_task(live(*made.nodes))
        await eventually(lambda: len(consul.locks) == 3, "the nodes")
        yield made
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_good_one_is_promoted(bed):
    """The canary's node takes it once, the others after it; the record has its end and evidence, and nobody holds the lock."""
    report = await bed.rollout()
    assert (report.ending, [each.standing.value for each in report.nodes]) == (Ending.PROMOTED, ["runs"] * 3)
    assert bed.contents() == [[OLD, NEW]] * 3
    end = record_of(bed.consul)
    assert (end.id, end.ended.how, bed.consul.keys["lb"][0]) == (report.record.id, "promoted", NEW)
    assert end.ended.why.startswith("web: failed 0% of ")
    assert ("lb.lock" in bed.consul.keys, "lb.lock" in bed.consul.locks) == (False, False)


async def test_the_others_run_the_old_until_it_is_promoted(bed):
    """Nobody but the named nodes takes it before."""
    task = asyncio.create_task(bed.rollout(("n3", "n1"), observe_s=60.0))
    await bed.says("observing")
    assert bed.contents() == [[OLD, NEW], [OLD], [OLD, NEW]]
    bed.stop.set()
    assert (await task).ending is Ending.TAKEN_BACK


async def test_a_bad_one_is_taken_back(bed):
    """Early, for it is obvious; nobody else ever runs it, and the reason is in the record."""
    bed.nodes[0].fails[NEW] = 0.5
    report = await bed.rollout(observe_s=3600.0)
    assert report.ending is Ending.TAKEN_BACK
    assert report.why.startswith("web: failed ")
    assert bed.contents() == [[OLD, NEW, OLD], [OLD], [OLD]]
    assert record_of(bed.consul).ended.why == report.why
    assert bed.consul.keys["lb"][0] == OLD


async def test_what_all_nodes_meet_is_not_its_fault(bed):
    """A backend that fails everywhere, while it is observed."""
    for node in bed.nodes:
        node.fails |= {OLD: 0.3, NEW: 0.3}
    assert (await bed.rollout()).ending is Ending.PROMOTED


async def test_who_tells_late_is_waited_for(bed):
    """What begins to fail everywhere is not its fault, though the others' newest numbers come after its own."""
    others = bed.nodes[1:]
    for node in others:
        node.silent = True
    task = asyncio.create_task(bed.rollout())
    await bed.says("observing")
    for node in bed.nodes:
        node.fails |= {OLD: 0.9, NEW: 0.9}
    at = bed.consul.index
    await eventually(lambda: bed.consul.index > at + 100, "its own numbers")
    assert not task.done()
    for node in others:
        node.silent = False
    report = await task
    assert (report.ending, report.verdict.is_judged) == (Ending.PROMOTED, True), report.why


@pytest.mark.parametrize("least", [0, 10**6])
async def test_too_little_traffic(bed, least):
    """Is no failure, unless so much was asked for."""
    for node in bed.nodes:
        node.rate = 0
    report = await bed.rollout(min_connections=least)
    assert report.ending is (Ending.TAKEN_BACK if least else Ending.PROMOTED)
    assert (report.verdict.is_judged, "--min-connections" in report.why) == (False, bool(least))
    assert (
        least
        or report.why
        == f"too little traffic to judge: {report.verdict.connections} new connections on its nodes"
    )
    assert report.verdict.connections < LEAST_CONNECTIONS or least


async def test_a_node_that_refuses_takes_it_back(bed):
    """At once, with what it says."""
    bed.nodes[0].refuses.add(NEW)
    report = await bed.rollout()
    assert (report.ending, report.why) == (Ending.TAKEN_BACK, "n1: lb:1: n1 does not want it")
    assert bed.contents() == [[OLD]] * 3


async def test_a_node_that_does_not_take_it_in_time(bed):
    """Takes it back."""
    bed.nodes[0].deaf = True
    report = await bed.rollout(taking_s=0.2)
    assert report.ending is Ending.TAKEN_BACK
    assert report.why.endswith("after 0.2 s")


async def test_a_node_that_is_not_ready_any_more_takes_it_back(bed):
    """The network sends it no clients, so none can fail."""
    bed.nodes[0].unready.add(NEW)
    bed.nodes[0].rate = 0
    report = await bed.rollout(observe_s=3600.0)
    assert (report.ending, report.why) == (Ending.TAKEN_BACK, "n1: not ready any more: a: ending")


async def test_a_node_that_never_was_ready_may_be_a_canary(bed):
    """It is no worse than before."""
    bed.nodes[0].unready |= {OLD, NEW}
    await eventually(lambda: b'"ready":false' in bed.consul.keys["livelb/edge/nodes/n1"][0], "its record")
    assert (await bed.rollout()).ending is Ending.PROMOTED


@pytest.mark.parametrize("step", ["begins", "observing"])
async def test_a_node_that_dies_takes_it_back(bed, step):
    """At whatever step: it is named, and not waited for."""
    bed.nodes[0].deaf = step == "begins"
    task = asyncio.create_task(bed.rollout(observe_s=3600.0))
    await bed.says(step)
    bed.nodes[0].dead = True
    report = await task
    assert report.ending is Ending.TAKEN_BACK
    assert report.why.startswith("n1: gone since ")


async def test_a_node_that_dies_after_it_is_promoted_is_named(bed):
    """All others are waited for."""
    bed.nodes[2].deaf = True
    task = asyncio.create_task(bed.rollout())
    await bed.says("promoted")
    bed.nodes[2].dead = True
    report = await task
    assert report.ending is Ending.PROMOTED
    assert [each.standing.value for each in report.nodes] == ["runs", "runs", "gone"]


@pytest.mark.parametrize("step", ["begins", "observing"])
async def test_interrupted(bed, step):
    """It is taken back before the command ends."""
    bed.nodes[0].deaf = step == "begins"
    task = asyncio.create_task(bed.rollout(observe_s=3600.0))
    await bed.says(step)
    bed.nodes[0].deaf = False
    bed.stop.set()
    report = await task
    assert (report.ending, report.why) == (Ending.TAKEN_BACK, "interrupted")
    assert [each.standing.value for each in report.nodes] == ["runs"]
    await eventually(lambda: all(each.running == OLD for each in bed.nodes), "the old content")


@pytest.mark.parametrize("step", ["begins", "observing"])
async def test_killed_and_gone_on_with(bed, step):
    """Nothing is written by a dead command; the next one has to wait for its lock, and goes on with the same content."""
    bed.nodes[0].deaf = step == "begins"
    task = asyncio.create_task(bed.rollout(observe_s=3600.0))
    await bed.says(step)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    bed.nodes[0].deaf = False
    old = record_of(bed.consul)
    assert (old.ended, bed.consul.keys["lb"][0]) == (None, OLD)
    await bed.expire_locks()
    with pytest.raises(HeldBackError, match=r"canary .* of ann on .* runs on n1"):
        await bed.rollout(raw=b"version: 1 # another")
    bed.said.clear()
    report = await bed.rollout()
    assert (report.ending, report.record.nodes) == (Ending.PROMOTED, ("n1",))
    assert report.record.id != old.id
    assert any("goes on as" in line for line in bed.said)
    assert bed.contents() == [[OLD, NEW]] * 3


async def test_killed_and_taken_back(bed):
    """By another command, which needs no file."""
    task = asyncio.create_task(bed.rollout(observe_s=3600.0))
    await bed.says("observing")
    with pytest.raises(HeldBackError, match=r"is being changed: a canary by ann on .* \(pid \d+\) since "):
        await take_back(bed.client, bed.keys, "bob")
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await bed.expire_locks()
    end = await take_back(bed.client, bed.keys, "bob")
    assert (end.ended.how, end.ended.why.startswith("by bob on ")) == ("taken_back", True)
    await eventually(lambda: bed.contents() == [[OLD, NEW, OLD], [OLD], [OLD]], "the old content")
    with pytest.raises(HeldBackError, match="no canary of consul-kv:lb runs"):
        await take_back(bed.client, bed.keys, "bob")


async def test_two_at_once(bed):
    """One is refused by the name of the other, and disturbs nothing."""
    first = asyncio.create_task(bed.rollout(observe_s=3600.0))
    await bed.says("observing")
    with pytest.raises(HeldBackError, match=r"nothing was changed: .* a canary by ann on "):
        await bed.rollout()
    bed.stop.set()
    assert (await first).ending is Ending.TAKEN_BACK


async def test_begun_at_the_same_instant(bed):
    """Exactly one of two begins."""
    done = await asyncio.gather(*(bed.rollout() for _ in range(2)), return_exceptions=True)
    refused = [each for each in done if isinstance(each, HeldBackError)]
    assert (len(refused), len(done)) == (1, 2), done
    assert bed.contents() == [[OLD, NEW]] * 3


async def test_the_key_written_meanwhile(bed):
    """What somebody forces in is not overwritten: the canary goes."""
    task = asyncio.create_task(bed.rollout(observe_s=3600.0))
    await bed.says("observing")
    newer = b"version: 1 # newer"
    bed.consul.keys["lb"] = (newer, bed.consul.index + 1)
    report = await task
    assert report.ending is Ending.TAKEN_BACK
    assert report.why == "somebody else has written consul-kv:lb meanwhile"
    await eventually(lambda: all(each.running == newer for each in bed.nodes), "the newer content")


async def test_the_key_written_in_the_first_moment(bed, monkeypatch):
    """Between the look and the lock: nothing begins."""
    real = Rollout._chosen

    def slow(self, look):
        bed.consul.keys["lb"] = (b"version: 1 # newer", bed.consul.index + 1)
        return real(self, look)

    monkeypatch.setattr(Rollout, "_chosen", slow)
    with pytest.raises(HeldBackError, match="somebody else has just changed consul-kv:lb; apply again"):
        await bed.rollout()
    assert ("lb.canary" in bed.consul.keys, bed.consul.sessions) == (False, {})


async def test_the_key_written_in_the_last_moment(bed, monkeypatch):
    """A promotion is made only over what the canary was begun with."""
    monkeypatch.setattr(Rollout, "_disturbed", lambda *_: None)
    task = asyncio.create_task(bed.rollout())
    await bed.says("observing")
    newer = b"version: 1 # newer"
    bed.consul.keys["lb"] = (newer, bed.consul.index + 1)
    assert (await task).ending is Ending.TAKEN_BACK
    assert bed.consul.keys["lb"][0] == newer


async def test_consul_away_in_the_middle(bed):
    """It is waited for, and nothing is lost."""
    task = asyncio.create_task(bed.rollout(observe_s=0.3))
    await bed.says("observing")
    bed.cut()
    await bed.says("Consul cannot be asked")
    bed.consul.fault = None
    assert (await task).ending is Ending.PROMOTED


@pytest.mark.parametrize("answer_comes", [True, False])
async def test_an_answer_that_is_lost(bed, answer_comes):
    """A promotion that was made and not confirmed is one; the record tells."""
    real, lost = FakeConsul._txn, []

    async def lossy(request, rest):
        if b"check-index" in await request.read() or lost:
            return await real(bed.consul, request, rest)
        lost.append(1)
        if answer_comes:
            await real(bed.consul, request, rest)
        return web.Response(status=500, text="rpc error making call: EOF")

    bed.consul._txn = lossy
    report = await bed.rollout()
    assert (report.ending, bool(lost)) == (Ending.PROMOTED, True)
    assert bed.contents() == [[OLD, NEW]] * 3


async def test_consul_never_comes_back(bed, monkeypatch):
    """The command says that it ends by itself, and the nodes end it."""
    monkeypatch.setattr(rollout, "SPARE_S", 0.0)
    monkeypatch.setattr(rollout, "_fresh_s", lambda _: 0.0)
    monkeypatch.setattr(rollout, "GIVE_UP_S", 0.1)
    task = asyncio.create_task(bed.rollout(observe_s=0.4, taking_s=0.3))
    await bed.says("observing")
    bed.cut()
    report = await task
    assert report.ending is Ending.ENDS_BY_ITSELF
    assert "the canary ends by itself" in report.why
    await eventually(lambda: bed.contents() == [[OLD, NEW, OLD], [OLD], [OLD]], "the old content")


async def test_ended_by_somebody_else(bed):
    """Whoever deletes the record by hand has the last word."""
    task = asyncio.create_task(bed.rollout(observe_s=3600.0))
    await bed.says("observing")
    del bed.consul.keys["lb.canary"]
    report = await task
    assert report.ending is Ending.TAKEN_OVER
    assert bed.consul.keys["lb"][0] == OLD
    assert "lb.canary" not in bed.consul.keys


async def test_the_lock_is_taken_again_when_it_was_lost(bed, monkeypatch):
    """Consul ended the session, for example without a leader for long."""
    monkeypatch.setattr("controlplane.cluster.lock.RENEW_S", 0.01)
    task = asyncio.create_task(bed.rollout(observe_s=3600.0))
    await bed.says("observing")
    held = bed.consul.locks["lb.lock"]
    await bed.expire_locks()
    await eventually(lambda: bed.consul.locks.get("lb.lock") not in (None, held), "another session")
    bed.stop.set()
    assert (await task).ending is Ending.TAKEN_BACK


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        (3, "3 live nodes of edge follow consul-kv:lb, so a canary of 3 would leave none"),
        (("n1", "n9"), "is called n9; there are: n1, n2, n3"),
    ],
)
async def test_nodes_that_are_none(bed, nodes, said):
    """Nothing was changed."""
    with pytest.raises(HeldBackError, match=said):
        await bed.rollout(nodes)
    assert "lb.canary" not in bed.consul.keys


async def test_nodes_that_do_not_run_what_they_should_are_no_canaries(bed):
    """They could not be told from those that it harms."""
    for node in bed.nodes[:2]:
        node.refuses.add(b"version: 1 # wrong")
    bed.consul.keys["lb"] = (b"version: 1 # wrong", bed.consul.index + 1)
    await eventually(lambda: all(each._error for each in bed.nodes[:2]), "the refusals")
    with pytest.raises(HeldBackError, match="only 1 nodes of edge run what they should: n3"):
        await bed.rollout(2)


async def test_nothing_to_compare_with(bed):
    """No key yet, or the same content: no canary begins."""
    report = await bed.rollout(raw=OLD)
    assert (report.ending, report.record) == (None, None)
    del bed.consul.keys["lb"]
    for node in bed.nodes:
        node.deaf = True
    with pytest.raises(HeldBackError, match="is empty, so there is nothing to compare a canary with"):
        await bed.rollout()


async def test_all_nodes_by_name(bed):
    """It is said that there is nobody else to compare with."""
    report = await bed.rollout(("n1", "n2", "n3"))
    assert report.ending is Ending.PROMOTED
    assert any("no other node is left" in line for line in bed.said)


async def test_more_than_a_transaction_takes(bed):
    """It is said before anything is done."""
    with pytest.raises(InputError, match="the most with a canary"):
        await bed.rollout(raw=b"x" * (MAX_CONTENT_BYTES + 1))


async def test_what_is_not_allowed_is_said_at_once(bed):
    """Nothing was done, and nothing is asked again."""

    async def denied(_request, _rest):
        return web.Response(status=403, text="Permission denied")

    bed.consul._session = denied
    with pytest.raises(ConsulError, match="denied: status 403: Permission denied, for /v1/session/create"):
        await bed.rollout()
    assert "lb.canary" not in bed.consul.keys


async def test_no_consul():
    """Nobody there is an error."""
    async with connected(with_address("http://127.0.0.1:1")) as client:
        looker = Looker(client, "edge", Keys("lb"), lambda _: None, asyncio.Event())
        with pytest.raises(ConsulError, match=r"127\.0\.0\.1:1"):
            await Rollout(looker, Order(NEW, 1, 1.0, 1.0, "ann")).run()
