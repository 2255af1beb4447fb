"""Commands without a daemon: what is different, since nobody goes on afterwards. What is the same: `together/test_both_ways`.

Commands through the daemon: what it is asked, and what its refusals are to whoever gave the command.
"""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from controlplane.dataplanes import requests
from controlplane.dataplanes.blocking_client import BlockingClient
from controlplane.dataplanes.endpoint import Endpoint
from controlplane.desired.document import Proposal
from controlplane.errors import (
    HeldBackError,
    InputError,
    LateError,
    PlaceError,
    RefusedError,
    UnknownError,
    UnreachableError,
)
from controlplane.operations.gateway import Direct, Remote, Threaded
from controlplane.operations.options import ApplyOptions, options_of_query
from controlplane.store import State, Store
from tests.controlplane.fakes import Blocking, FakeDataPlane
from tests.controlplane.operations.test_controller import proposal
from tests.support.ports import HeldPort

QUICK = ApplyOptions(timeout_s=10.0)
FORCED = ApplyOptions(timeout_s=10.0, force=True)
CAREFUL = ApplyOptions(timeout_s=2.5, max_remap=0.125, force=True)
PROPOSAL = Proposal.of_document({"version": 1, "services": {}}, "test", Path())


class Contested(FakeDataPlane):
    """One to which somebody else pushes between the dry run and the push, so many times."""

    def __init__(self, times):
        super().__init__()
        self.times = times

    def _put(self, body, *, dry):
        answer = super()._put(body, dry=dry)
        if dry and self.times:
            self.times -= 1
            self.generation, self.hash = self.generation + 1, f"theirs-{self.times}"
        return answer


def direct(tmp_path, *planes):
    """Return the way to these data planes."""
    return Direct(lambda: tuple(map(Blocking, planes)), Store(tmp_path), "op")


def test_somebody_who_pushes_at_the_same_time_is_told_of(tmp_path):
    """Theirs goes on, nothing is written down, and the next apply has a generation above it."""
    plane = Contested(1)
    way = direct(tmp_path, plane)
    report = way.apply(proposal(), QUICK)
    (row,) = report["dataplanes"]
    assert (report["converged"], row["result"], row["generation"]) == (False, "overtaken", 1)
    assert "has pushed generation 1: apply again, or use --force" in row["error"]
    assert (plane.hash, Store(tmp_path).load()) == ("theirs-0", State())
    assert way.apply(proposal(), QUICK)["generation"] == 2


@pytest.mark.parametrize(("times", "result"), [(2, "ok"), (9, "overtaken")])
def test_force_tries_again(tmp_path, times, result):
    """Somebody who pushes now and then is overruled; somebody who does so without end is told of."""
    report = direct(tmp_path, Contested(times)).apply(proposal(), FORCED)
    assert [row["result"] for row in report["dataplanes"]] == [result]


def test_what_nobody_runs_is_not_written_down(tmp_path):
    """A daemon that starts later must not begin with what an operator saw fail; what one of two runs is kept."""
    one, other = FakeDataPlane("a"), FakeDataPlane("b")
    one.away = other.away = True
    way = direct(tmp_path, one, other)
    assert [row["result"] for row in way.apply(proposal(), QUICK)["dataplanes"]] == ["unreachable"] * 2
    assert Store(tmp_path).load() == State()
    one.away = False
    report = way.apply(proposal(), QUICK)
    assert [row["result"] for row in report["dataplanes"]] == ["ok", "unreachable"]
    assert (Store(tmp_path).load().hash, "kept" in report) == (one.hash, False)


def test_word_about_one_backend_pushes_no_snapshot(tmp_path):
    """What a data plane runs by other means stays, though something else was applied before."""
    plane = FakeDataPlane()
    way = direct(tmp_path, plane)
    way.apply(proposal(), QUICK)
    plane.generation, plane.hash = 7, "its own"
    assert way.patch("web", "10.0.0.1:1", {"state": "drain"})["dataplanes"][0]["result"] == "ok"
    assert (plane.generation, plane.hash) == (7, "its own")
    assert plane.overrides == {("web", "10.0.0.1:1", "state"): "drain"}
    assert [each.value for each in Store(tmp_path).load().overrides] == ["drain"]


def test_word_that_nobody_hears_is_not_kept(tmp_path):
    """Nobody would tell it later."""
    plane = FakeDataPlane()
    way = direct(tmp_path, plane)
    way.apply(proposal(), QUICK)
    plane.away = True
    with pytest.raises(PlaceError, match="no data plane answers: a: unreachable: nobody listens"):
        way.patch("web", "10.0.0.1:1", {"state": "drain"})
    assert Store(tmp_path).load().overrides == ()


class Slow:
    """A client that answers when it is let go."""

    endpoint = Endpoint("slow", "/nowhere")

    def __init__(self):
        self.let_go = threading.Event()

    def ask(self, _call, *, timeout_s):
        """Wait for that."""
        self.let_go.wait()
        raise UnreachableError("slow", "too late")


async def test_thread_that_hangs_is_left_behind():
    """Its question is late in time, and its answer afterwards is nobody's."""
    slow = Slow()
    with pytest.raises(LateError, match=r"no answer within 0\.01 s"):
        await Threaded(slow).ask(requests.get("/v1/info"), timeout_s=0.01)
    slow.let_go.set()
    with pytest.raises(UnreachableError, match="too late"):
        await Threaded(slow).ask(requests.get("/v1/info"), timeout_s=20.0)
    await asyncio.sleep(0)


class Daemon:
    """Stands for the client of one: what it is asked is written down."""

    def __init__(self, answer=None):
        self._answer = answer if answer is not None else {"converged": True}
        self.asked = None
        self.timeout_s = None

    def ask(self, call, *, timeout_s):
        """Answer, or raise the answer."""
        self.asked, self.timeout_s = call, timeout_s
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.mark.parametrize(
    ("command", "path", "body"),
    [
        (lambda way: way.plan(PROPOSAL, CAREFUL), "/v1/plan", PROPOSAL.document),
        (lambda way: way.apply(PROPOSAL, CAREFUL), "/v1/apply", PROPOSAL.document),
        (lambda way: way.rollback(7, CAREFUL), "/v1/rollback", {"generation": 7}),
        (lambda way: way.rollback(None, CAREFUL), "/v1/rollback", {}),
    ],
)
def test_changes_take_their_options_along(command, path, body):
    """The daemon reads the same options, and has more time than it was given, to say that it had too little."""
    daemon = Daemon()
    assert command(Remote(daemon)) == {"converged": True}
    target = urlsplit(daemon.asked.target)
    assert (daemon.asked.method, target.path, json.loads(daemon.asked.body)) == ("POST", path, body)
    assert options_of_query(dict(parse_qsl(target.query))) == CAREFUL
    assert daemon.timeout_s > CAREFUL.timeout_s


@pytest.mark.parametrize("what", ["status", "snapshot", "history"])
def test_looks_change_nothing(what):
    """Each is one question, and its answer comes as it is."""
    daemon = Daemon({"what": what})
    assert getattr(Remote(daemon), what)() == {"what": what}
    assert (daemon.asked.method, daemon.asked.target, daemon.asked.body) == ("GET", f"/v1/{what}", None)


def test_a_word_about_one_backend():
    """It names the backend, whatever is in its id, and the fields."""
    daemon = Daemon()
    Remote(daemon).patch("web", "n1/s1", {"weight": 3})
    assert (daemon.asked.method, daemon.asked.target) == ("PATCH", "/v1/services/web/backends/n1%2Fs1")
    assert json.loads(daemon.asked.body) == {"weight": 3}


PROBLEMS = [{"path": "services.web", "message": "no"}]


@pytest.mark.parametrize(
    ("status", "details", "kind", "said", "code"),
    [
        (422, PROBLEMS, InputError, "services.web: no", 2),
        (422, [], HeldBackError, "its words", 1),
        (404, [], UnknownError, "its words", 1),
        (409, [], HeldBackError, "its words", 1),
        (500, [], HeldBackError, "its words", 1),
    ],
)
def test_refusals_are_those_of_a_command_without_a_daemon(status, details, kind, said, code):
    """Problems with their places, what is unknown, what stands in the way: in the daemon's words, without its name."""
    refusal = RefusedError("the daemon", status, {"code": "x", "message": "its words", "details": details})
    with pytest.raises(kind) as caught:
        Remote(Daemon(refusal)).apply(PROPOSAL, CAREFUL)
    assert (type(caught.value), str(caught.value), caught.value.exit_code) == (kind, said, code)


def test_a_daemon_that_does_not_answer_is_said():
    """That is no refusal: nothing is known of the change."""
    with pytest.raises(LateError):
        Remote(Daemon(LateError("the daemon", 1.0))).apply(PROPOSAL, CAREFUL)


def test_a_command_alone_divides_limits_as_the_daemon_did(tmp_path):
    """By the number of nodes that was kept; status tells both."""
    plane = FakeDataPlane()
    Store(tmp_path).save(State(share=3))
    wanted = {"listen": ":1", "backends": [], "limits": {"queue": 10, "scope": "cluster"}}
    document = {"version": 1, "services": {"web": wanted}, "cluster": {"name": "edge"}}
    way = direct(tmp_path, plane)
    way.apply(Proposal.of_document(document, "test", Path()), QUICK)
    assert plane.services["web"]["limits"]["queue"] == 3
    assert way.status()["share"] == {"nodes": 3, "limits": {"web": {"queue": {"limit": 10, "here": 3}}}}


def test_a_command_alone_knows_its_node(tmp_path):
    """From its environment, or what the daemon kept of the agent; through a daemon the command fills nothing in."""
    Store(tmp_path).keep_identity({"NODE_NAME": "lb-1"})
    way = Direct(tuple, Store(tmp_path), "op", environ={"NODE_IP": "10.0.0.1"})
    with HeldPort() as port:
        known = way.look(frozenset({"NODE_NAME", "NODE_IP"}), {"address": f"http://{port.address}"}).known
    assert {name: each.value for name, each in known.items()} == {"NODE_NAME": "lb-1", "NODE_IP": "10.0.0.1"}
    through = Remote(BlockingClient(Endpoint("the daemon", "/nowhere"))).look(frozenset({"NODE_IP"}), None)
    assert (dict(through.known), through.placeholders) == ({}, True)
