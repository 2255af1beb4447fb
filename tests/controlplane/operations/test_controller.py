"""The one writer: what it takes, refuses, writes down and resumes; and that everybody ends with what was taken last."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.core.rollout import Running
from controlplane.dataplanes.endpoint import Endpoint
from controlplane.dataplanes.fleet import Fleet
from controlplane.dataplanes.pusher import Timing
from controlplane.desired.document import Proposal, Reader
from controlplane.errors import HeldBackError, InputError, UnknownError
from controlplane.operations.accepted import Keeping
from controlplane.operations.controller import Controller, News
from controlplane.operations.options import ApplyOptions, Origin
from controlplane.store import Store
from schemas.loops import ANYWHERE, Machine
from schemas.variables import Known, Variables
from tests.controlplane.fakes import FakeDataPlane
from tests.support.wait import DEADLINE_S

BY = Origin("op", "apply")
QUICK = ApplyOptions(timeout_s=5.0)
FAST = Timing(look_s=0.002, retry_s=0.002, retry_max_s=0.004)
PLACE = ("web", "10.0.0.1:1", "state")


def document(weight=1, **more):
    """Write an lb.yaml as JSON."""
    backends = [{"address": "10.0.0.1:1", "weight": weight}, "10.0.0.2:1"]
    return {"version": 1, "services": {"web": {"listen": "127.0.0.1:4000", "backends": backends}, **more}}


def proposal(weight=1, **more):
    """Check one."""
    return Proposal.of_document(document(weight, **more), "test", Path())


@contextlib.asynccontextmanager
async def daemon(directory, planes, log=None, look=lambda *_: Variables()):
    """Run a controller over these data planes, on a node with the variables that `look` finds."""
    by_endpoint = {plane.endpoint: plane for plane in planes}
    controller = Controller(
        Keeping(Store(directory), (lambda _: None) if log is None else log.append),
        lambda on_ahead, on_change: Fleet(
            lambda: tuple(by_endpoint),
            connect=by_endpoint.__getitem__,
            on_ahead=on_ahead,
            on_change=on_change,
            timing=FAST,
        ),
        reader=Reader(directory, look),
        on_event=lambda _: None,
        log=(lambda _: None) if log is None else log.append,
    )
    tasks = [asyncio.create_task(controller.fleet.run())]
    try:
        await controller.start()
        tasks.append(asyncio.create_task(controller.run()))
        yield controller
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(holds):
    """Wait for what the data planes come to."""
    while not holds():  # noqa: ASYNC110 - what is waited for tells nobody
        await asyncio.sleep(0.001)


async def test_apply_reaches_everybody(tmp_path):
    """An apply returns when every data plane runs the same generation and hash."""
    planes = [FakeDataPlane("a"), FakeDataPlane("b")]
    async with daemon(tmp_path, planes) as controller:
        report = await controller.apply(proposal(), QUICK, BY)
    assert report["converged"]
    assert {(plane.generation, plane.hash) for plane in planes} == {(1, report["hash"])}
    assert [row["result"] for row in report["dataplanes"]] == ["ok", "ok"]


async def test_somebody_who_pushes_again_and_again_is_told_of_and_fills_no_history(tmp_path):
    """Our word holds at first, then with pauses; what is pushed again is no entry, and an operator's word goes at once."""
    plane, log = FakeDataPlane(), []
    async with daemon(tmp_path, [plane], log) as controller:
        first = await controller.apply(proposal(), QUICK, BY)
        for number in range(2):
            plane.push_by_hand(plane.generation + 1, f"theirs {number}")
            await until(lambda: plane.hash == first["hash"])
        plane.push_by_hand(plane.generation + 1, "theirs again")
        asked = len(plane.asked)
        await until(lambda: len(plane.asked) > asked + 5)
        told = controller.contest.status(time.monotonic())
        assert told["by"]["source"] == "/etc/other.yaml"
        assert told["times"] >= 2
        assert [each["generation"] for each in (await controller.accepted.history())["history"]] == [1]
        assert "lb-control run of root (pid 7 on b), from /etc/other.yaml" in log[-1]
        second = await controller.apply(proposal(weight=7), QUICK, BY)
        assert second["converged"]
        assert len((await controller.accepted.history())["history"]) == 2


async def test_the_same_content_of_somebody_else_is_no_contest(tmp_path):
    """Two daemons that want the same agree on the higher generation, however often."""
    plane = FakeDataPlane()
    async with daemon(tmp_path, [plane]) as controller:
        first = await controller.apply(proposal(), QUICK, BY)
        for _ in range(5):
            plane.push_by_hand(plane.generation + 1, first["hash"])
            await until(lambda: controller.accepted.state.generation == plane.generation)
        assert controller.contest.status(time.monotonic()) is None
        assert len((await controller.accepted.history())["history"]) == 1


async def test_same_apply_again_is_no_new_generation(tmp_path):
    """What runs already is left alone, and the history does not grow."""
    async with daemon(tmp_path, [FakeDataPlane()]) as controller:
        await controller.apply(proposal(), QUICK, BY)
        again = await controller.apply(proposal(), QUICK, BY)
        assert (again["generation"], len((await controller.accepted.history())["history"])) == (1, 1)


async def test_the_balancer_as_its_own_backend(tmp_path, monkeypatch):
    """A listed backend at an address of this machine on which a listener is on every address: refused, by path."""
    here = Machine(lambda host: host == "10.0.0.1", str)
    monkeypatch.setattr("controlplane.dataplanes.fleet.HERE", here)
    loop = {"listen": ":1", "backends": ["10.0.0.2:1", "10.0.0.1:1"]}
    plane = FakeDataPlane()
    async with daemon(tmp_path, [plane]) as controller:
        for refused in (
            controller.plan(proposal(loop=loop), QUICK),
            controller.apply(proposal(loop=loop), QUICK, BY),
        ):
            with pytest.raises(InputError, match=r"services\.loop\.backends\[1\].*itself listens"):
                await refused
        assert plane.generation == 0
        far = Endpoint("far", "https://far:7600")
        controller.fleet.pushers[far] = controller.fleet.pushers[plane.endpoint]
        assert controller.fleet.machine() is ANYWHERE, "what is local elsewhere is not known here"
        del controller.fleet.pushers[far]


async def test_refusal_of_one_changes_nobody(tmp_path):
    """The dry run comes first: nothing is pushed if one data plane would refuse it."""
    good, bad = FakeDataPlane("a"), FakeDataPlane("b")
    bad.refuses = "extra"
    extra = {"listen": "127.0.0.1:4001", "backends": ["10.0.0.9:1"]}
    async with daemon(tmp_path, [good, bad]) as controller:
        await controller.apply(proposal(), QUICK, BY)
        with pytest.raises(HeldBackError, match="b: refused: no such thing here"):
            await controller.apply(proposal(extra=extra), QUICK, BY)
        assert (good.generation, bad.generation, controller.accepted.state.generation) == (1, 1, 1)


async def test_unreachable_data_plane_is_named_and_served_when_it_returns(tmp_path):
    """A partial apply says who is missing; the one that comes back gets it without another apply."""
    here, away = FakeDataPlane("a"), FakeDataPlane("b")
    away.away = True
    async with daemon(tmp_path, [here, away]) as controller:
        report = await controller.apply(proposal(), QUICK, BY)
        assert not report["converged"]
        assert [(row["name"], row["result"]) for row in report["dataplanes"]] == [
            ("a", "ok"),
            ("b", "unreachable"),
        ]
        away.away = False
        await until(lambda: away.hash == report["hash"])


async def test_hanging_data_plane_is_late(tmp_path):
    """The deadline holds, and who kept it waiting is named, with what it runs."""
    here, hanging = FakeDataPlane("a"), FakeDataPlane("b")
    async with daemon(tmp_path, [here, hanging]) as controller:
        await controller.apply(proposal(), QUICK, BY)
        hanging.hangs = True
        await until(lambda: not all(each.reachable for each in controller.fleet.pushers.values()))
        report = await controller.apply(proposal(2), ApplyOptions(timeout_s=2.0), BY)
    rows = {row["name"]: row for row in report["dataplanes"]}
    assert (rows["a"]["result"], rows["b"]["result"], rows["b"]["generation"]) == ("ok", "late", 1)


async def test_the_same_again_is_confirmed_at_once(tmp_path):
    """Who runs it already says so when asked: nothing is waited for."""
    async with daemon(tmp_path, [FakeDataPlane()]) as controller:
        for _ in range(3):
            assert (await controller.apply(proposal(), ApplyOptions(timeout_s=3600.0), BY))["converged"]


@pytest.mark.parametrize("fault", ["away", "hangs"])
async def test_who_ran_it_and_answers_no_more_is_no_success(tmp_path, fault):
    """What a data plane ran before it died, or hung, is no answer to an apply of the same content."""
    here, lost = FakeDataPlane("a"), FakeDataPlane("b")
    async with daemon(tmp_path, [here, lost]) as controller:
        assert (await controller.apply(proposal(), QUICK, BY))["converged"]
        setattr(lost, fault, True)
        report = await controller.apply(proposal(), ApplyOptions(timeout_s=2.0), BY)
        assert not report["converged"]
        results = {row["name"]: row["result"] for row in report["dataplanes"]}
        assert results == {"a": "ok", "b": "unreachable" if fault == "away" else "late"}


async def test_killed_daemon_resumes_its_generation(tmp_path):
    """What was taken is wished again by the next daemon, also for a data plane that has lost everything."""
    plane = FakeDataPlane()
    async with daemon(tmp_path, [plane]) as controller:
        report = await controller.apply(proposal(), QUICK, BY)
    plane.restart(keeps=False)
    async with daemon(tmp_path, [plane]):
        await until(lambda: (plane.generation, plane.hash) == (1, report["hash"]))


def node(address):
    """Return what finds the variables of a node that has this address; None: nobody knows it."""
    known = {} if address is None else {"NODE_IP": Known(address, "the environment")}
    return lambda *_: Variables(known)


def everywhere(address):
    """Write the lb.yaml of all nodes, and check it on one."""
    wanted = document()
    wanted["services"]["web"]["listen"] = "${NODE_IP}:4000"
    return Proposal.of_document(wanted, "test", Path(), node(address))


async def test_one_file_for_all_nodes_is_kept_as_it_was_written(tmp_path):
    """The data planes and the hash have this node's address, the history has the variable, and a rollback takes it anew."""
    plane = FakeDataPlane()
    async with daemon(tmp_path, [plane], look=node("10.1.0.1")) as controller:
        first = await controller.apply(everywhere("10.1.0.1"), QUICK, BY)
        assert plane.services["web"]["listen"] == ["10.1.0.1:4000"]
        assert controller.accepted.state.document["services"]["web"]["listen"] == "${NODE_IP}:4000"
        await controller.apply(proposal(weight=2), QUICK, BY)
        back = await controller.rollback(None, QUICK, "op")
        assert (back["hash"], plane.services["web"]["listen"]) == (first["hash"], ["10.1.0.1:4000"])


async def test_a_node_that_has_another_address_at_its_next_start_listens_there(tmp_path):
    """As a generation of its own; one that does not know its address any more goes on with the last one."""
    plane, log = FakeDataPlane(), []
    async with daemon(tmp_path, [plane], look=node("10.1.0.1")) as controller:
        await controller.apply(everywhere("10.1.0.1"), QUICK, BY)
    async with daemon(tmp_path, [plane], log, look=node(None)) as controller:
        await until(lambda: controller.fleet.pushers)
        assert controller.accepted.state.services["web"]["listen"] == ["10.1.0.1:4000"]
        assert "services.web.listen: has ${NODE_IP}, which is not known" in log[0]
    async with daemon(tmp_path, [plane], look=node("10.1.0.2")):
        await until(lambda: plane.services["web"]["listen"] == ["10.1.0.2:4000"])
    assert plane.generation == 2


async def test_data_plane_that_is_ahead_raises_the_generation(tmp_path):
    """A generation from elsewhere is followed by a higher one with what was taken here."""
    plane = FakeDataPlane()
    async with daemon(tmp_path, [plane]) as controller:
        report = await controller.apply(proposal(), QUICK, BY)
        plane.generation, plane.hash = 41, "foreign"
        await until(lambda: (plane.generation, plane.hash) == (42, report["hash"]))
        assert controller.accepted.state.generation == 42


async def test_daemon_that_knows_nothing_leaves_data_planes_alone(tmp_path):
    """Without a file and without a state it only watches."""
    plane = FakeDataPlane()
    plane.generation, plane.hash = 5, "theirs"
    async with daemon(tmp_path, [plane]) as controller:
        await until(lambda: len(plane.asked) > 5)
        assert (plane.generation, plane.hash) == (5, "theirs")
        report = await controller.apply(proposal(), QUICK, BY)
        assert report["generation"] == 6


async def test_override_survives_restarts_of_both_and_ends_with_a_new_word(tmp_path):
    """It is written down, told to every new process, and ends when lb.yaml changes that same field."""
    plane = FakeDataPlane()
    async with daemon(tmp_path, [plane]) as controller:
        await controller.apply(proposal(), QUICK, BY)
        report = await controller.patch("web", "10.0.0.1:1", {"state": "drain"}, by="op", timeout_s=5)
        assert [row["result"] for row in report["dataplanes"]] == ["ok"]
        assert plane.overrides == {PLACE: "drain"}
    plane.restart()
    async with daemon(tmp_path, [plane]) as controller:
        await until(lambda: plane.overrides == {PLACE: "drain"})
        await controller.apply(proposal(weight=5), QUICK, BY)
        await until(lambda: plane.overrides == {PLACE: "drain"})
        backends = [{"address": "10.0.0.1:1", "state": "disabled"}]
        changed = proposal(web={"listen": "127.0.0.1:4000", "backends": backends})
        await controller.apply(changed, QUICK, BY)
        assert controller.accepted.state.overrides == ()
        assert plane.overrides == {}


async def test_override_that_was_taken_back_while_a_data_plane_was_away_ends_there_too(tmp_path):
    """Nothing depends on having heard: the word that ended it is told later."""
    plane = FakeDataPlane()
    async with daemon(tmp_path, [plane]) as controller:
        await controller.apply(proposal(), QUICK, BY)
        await controller.patch("web", "10.0.0.1:1", {"state": "drain"}, by="op", timeout_s=5)
        plane.away = True
        await controller.patch("web", "10.0.0.1:1", {"state": "enabled"}, by="op", timeout_s=5)
    plane.away = False
    async with daemon(tmp_path, [plane]):
        await until(lambda: not plane.overrides)


async def test_unknown_backend_is_refused_with_those_there_are(tmp_path):
    """A typing error must not become an override that waits for its backend."""
    async with daemon(tmp_path, [FakeDataPlane()]) as controller:
        await controller.apply(proposal(), QUICK, BY)
        with pytest.raises(
            UnknownError, match=r"no backend x in service web; there are: 10\.0\.0\.1:1, 10\.0\.0\.2:1"
        ):
            await controller.patch("web", "x", {"state": "drain"}, by="op", timeout_s=5)
        with pytest.raises(UnknownError, match="no service db; there are: web"):
            await controller.patch("db", "x", {"state": "drain"}, by="op", timeout_s=5)


async def test_rollback_is_a_new_generation_with_the_old_content(tmp_path):
    """Alone it returns to the previous content; with a generation to that one; an unknown one is refused."""
    async with daemon(tmp_path, [FakeDataPlane()]) as controller:
        hashes = [(await controller.apply(proposal(weight), QUICK, BY))["hash"] for weight in (1, 2, 3)]
        back = await controller.rollback(None, QUICK, "op")
        assert (back["generation"], back["hash"], back["restored"]) == (4, hashes[1], 2)
        back = await controller.rollback(1, QUICK, "op")
        assert (back["generation"], back["hash"], back["restored"]) == (5, hashes[0], 1)
        with pytest.raises(UnknownError, match="generation 77 is not in the history, which has 1 to 5"):
            await controller.rollback(77, QUICK, "op")


async def test_rollback_without_a_past_says_why(tmp_path):
    """What a data plane ran by other means is in no history."""
    async with daemon(tmp_path, [FakeDataPlane()]) as controller:
        with pytest.raises(UnknownError, match=r"it has no generation; what ran before was not applied by"):
            await controller.rollback(None, QUICK, "op")
        await controller.apply(proposal(), QUICK, BY)
        with pytest.raises(UnknownError, match=r"it has one content, of generation 1; what ran before was"):
            await controller.rollback(None, QUICK, "op")


async def test_what_was_applied_after_the_file_is_known_to_hold(tmp_path):
    """An apply besides the file says who; the file's next content takes the word back."""
    async with daemon(tmp_path, [FakeDataPlane()]) as controller:
        digest = hashlib.sha256(b"1").hexdigest()
        await controller.take(proposal(), QUICK, Origin("file", "file"), file_digest=digest)
        await controller.apply(proposal(2), QUICK, BY)
        assert controller.accepted.state.applied_by == "op"
    async with daemon(tmp_path, [FakeDataPlane()]) as controller:
        assert (controller.accepted.state.applied_by, controller.accepted.state.file_digest) == ("op", digest)
        await controller.take(proposal(3), QUICK, Origin("file", "file"), file_digest="other")
        assert controller.accepted.state.applied_by is None


async def test_apply_of_what_the_watched_file_says_is_the_files_word(tmp_path):
    """The same content again makes nobody stale; after another one it is how the file's word returns."""
    async with daemon(tmp_path, [FakeDataPlane()]) as controller:
        digest = hashlib.sha256(b"1").hexdigest()
        await controller.take(proposal(), QUICK, Origin("file", "file"), file_digest=digest)
        await controller.apply(proposal(), QUICK, BY)
        assert (controller.accepted.state.applied_by, controller.accepted.state.applied_since) == (None, None)
        await controller.apply(proposal(2), QUICK, BY)
        since = controller.accepted.state.applied_since
        await controller.apply(proposal(2), QUICK, Origin("another", "apply"))
        assert (controller.accepted.state.applied_by, controller.accepted.state.applied_since) == (
            "op",
            since,
        )
    async with daemon(tmp_path, [FakeDataPlane()]) as controller:
        await controller.apply(proposal(), QUICK, BY)
        assert (controller.accepted.state.applied_by, controller.accepted.state.applied_since) == (None, None)
        assert controller.accepted.state.file_digest == digest


async def test_damaged_state_is_said_and_the_history_takes_over(tmp_path):
    """A state that does not match its digest is never used; the newest lb.yaml of the history is."""
    plane, log = FakeDataPlane(), []
    async with daemon(tmp_path, [plane]) as controller:
        report = await controller.apply(proposal(), QUICK, BY)
    path = tmp_path / "control" / "state.json"
    path.write_text(path.read_text().replace("enabled", "drain"))
    plane.restart(keeps=False)
    async with daemon(tmp_path, [plane], log):
        await until(lambda: plane.hash == report["hash"])
    assert "damaged" in log[0]


class Script:
    """What happened, and what was last taken."""

    def __init__(self, directory, planes):
        self.directory = directory
        self.planes = planes
        self.taken = None
        self.override = None

    async def play(self, lives):
        """Play one life of the daemon after another; each ends by a crash."""
        for steps in lives:
            async with daemon(self.directory, self.planes) as controller:
                for kind, plane, value in steps:
                    await getattr(self, kind)(controller, self.planes[plane], value)

    async def apply(self, controller, _, weight):
        """Have a content taken, without waiting for anybody."""
        wish, _ = await controller.take(proposal(weight), ApplyOptions(timeout_s=0.2, force=True), BY)
        self.taken = wish.target.hash

    async def away(self, _controller, plane, _):
        """Let one be out of reach."""
        plane.away = True

    async def back(self, _controller, plane, _):
        """Let it be reached again."""
        plane.away = False

    async def lost(self, _controller, plane, value):
        """Restart one, with its snapshot or without."""
        plane.restart(keeps=value % 2 == 0)

    async def foreign(self, _controller, plane, value):
        """Let somebody else push to one."""
        plane.generation, plane.hash, plane.services = plane.generation + value, f"foreign-{value}", {}

    async def pause(self, _controller, _plane, value):
        """Let the pushers get some way."""
        await asyncio.sleep(value / 1000)


steps = st.tuples(
    st.sampled_from(["apply", "apply", "away", "back", "lost", "foreign", "pause"]),
    st.integers(0, 1),
    st.integers(1, 5),
)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(steps, max_size=8), min_size=1, max_size=3))
def test_what_runs_in_the_end_is_what_was_taken_last(lives):
    """For any sequence of changes, crashes, restarts and foreign pushes: when all can be reached, all run it."""

    async def play():
        with tempfile.TemporaryDirectory() as directory:
            planes = [FakeDataPlane("a"), FakeDataPlane("b")]
            script = Script(Path(directory), planes)
            await script.play(lives)
            for plane in planes:
                plane.away = False
            async with daemon(script.directory, planes) as controller:
                if script.taken is None:
                    return
                assert controller.accepted.state.hash == script.taken
                async with asyncio.timeout(DEADLINE_S):
                    await until(lambda: {plane.hash for plane in planes} == {script.taken})
                    await until(lambda: len({plane.generation for plane in planes}) == 1)

    asyncio.run(play())


def test_document_in_the_history_is_what_was_written(tmp_path):
    """The history keeps lb.yaml itself, so that a rollback still knows defaults and discovery."""

    async def play():
        async with daemon(tmp_path, [FakeDataPlane()]) as controller:
            await controller.apply(proposal(), QUICK, BY)

    asyncio.run(play())
    (entry,) = Store(tmp_path).history().entries
    assert Store(tmp_path).document(entry.document) == json.loads(json.dumps(document()))


async def test_news_are_the_newest_of_each_kind():
    """What was not looked at yet is replaced, and looked at once."""
    news = News()
    news.ahead(Running("first", 1, "x"))
    news.ahead(Running("second", 2, "y"))
    news.discovered()
    news.shared(2)
    news.shared(3)
    await news.wait()
    assert news.take() == (True, 3, Running("second", 2, "y"))
    assert news.take() == (False, None, None)


# --- limits that all nodes share ----------------------------------------------------------------------


def shared(connections=100):
    """Write an lb.yaml whose service has connections that all nodes share."""
    wanted = document()
    wanted["services"]["web"]["limits"] = {"connections": connections, "scope": "cluster"}
    return Proposal.of_document({**wanted, "cluster": {"name": "edge"}}, "test", Path())


def here(plane):
    """Return how many connections a data plane may have."""
    return plane.services["web"]["limits"]["connections"]


async def test_another_number_of_nodes_is_a_generation_of_its_own(tmp_path):
    """Its origin says so; a data plane that comes later gets it as everybody did."""
    plane, late = FakeDataPlane("a"), FakeDataPlane("b")
    late.away = True
    async with daemon(tmp_path, [plane, late]) as controller:
        await controller.apply(shared(), ApplyOptions(timeout_s=0.2), BY)
        assert here(plane) == 100
        for nodes, share in ((3, 33), (1, 100), (200, 1)):
            controller.news.shared(nodes)
            await until(lambda share=share: here(plane) == share)
        controller.news.shared(200)
        late.away = False
        await until(lambda: late.services.get("web") and here(late) == 1)
        history = (await controller.accepted.history())["history"]
    assert [(each["origin"], each["by"]) for each in history] == [
        ("apply", "op"),
        ("cluster", "3 nodes"),
        ("cluster", "1 node"),
        ("cluster", "200 nodes"),
    ]
    (change,) = history[1]["changes"]
    assert change["fields"] == {"limits.connections": {"from": 100, "to": 33}}


async def test_the_number_of_nodes_outlives_the_daemon(tmp_path):
    """Whoever starts without Consul divides as before, also what is applied then; so does a command alone."""
    plane = FakeDataPlane()
    async with daemon(tmp_path, [plane]) as controller:
        await controller.apply(proposal(), QUICK, BY)
        controller.news.shared(3)
        await until(lambda: Store(tmp_path).load().share == 3)
        assert controller.accepted.state.generation == 1, "nothing that is shared has changed"
    async with daemon(tmp_path, [plane]) as controller:
        planned = await controller.plan(shared(90), QUICK)
        assert planned["warnings"] == []
        await controller.apply(shared(90), QUICK, BY)
        assert here(plane) == 30
    state = Store(tmp_path).load()
    assert (state.share, state.scoped) == (3, {"web": {"connections": 90}})


async def test_who_never_knew_how_many_nodes_there_are_says_so(tmp_path):
    """It takes the limits for its own, as if it was alone."""
    async with daemon(tmp_path, [FakeDataPlane()]) as controller:
        (warning,) = (await controller.apply(shared(), QUICK, BY))["warnings"]
    assert warning.startswith("this node takes the limits of all nodes for its own, of web: ")
