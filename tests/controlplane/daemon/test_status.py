"""The node's status: who answers is shown as they are, who does not as they were, and who drains as long as they answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import pytest

from controlplane.daemon.status import Observer
from controlplane.dataplanes.requests import here
from controlplane.errors import GoneError, PlaceError
from controlplane.operations.options import ApplyOptions, Origin
from tests.controlplane.fakes import FakeDataPlane
from tests.controlplane.operations.test_controller import daemon, proposal, until

BY = Origin("op", "apply")
QUICK = ApplyOptions(timeout_s=5.0)


@contextlib.asynccontextmanager
async def observed(directory, *planes, draining=()):
    """Apply something to these data planes; yields what observes them, and the controller."""
    connect = {each.endpoint: each for each in (*planes, *draining)}
    async with daemon(directory, planes) as controller:
        await controller.apply(proposal(), QUICK, BY)
        yield (
            Observer(controller, lambda: [each.endpoint for each in draining], connect.__getitem__),
            controller,
        )


async def rows(observer, what="dataplanes"):
    """Return the rows of a status, by name."""
    return {row["name"]: row for row in (await observer.status([], None))[what]}


async def test_everybody_is_asked(tmp_path):
    """What they run, and that it is what was accepted; sources and a file's error are shown as they are handed in."""
    async with observed(tmp_path, FakeDataPlane("a"), FakeDataPlane("b")) as (observer, controller):
        status = await observer.status([{"name": "file x"}], {"message": "no"})
    state = controller.accepted.state
    assert {(row["generation"], row["hash"]) for row in status["dataplanes"]} == {(1, state.hash)}
    assert (status["converged"], status["generation"], status["hash"]) == (True, 1, state.hash)
    assert (status["sources"], status["config_error"]) == ([{"name": "file x"}], {"message": "no"})
    assert (status["contested"], status["unserved"]) == (None, [])


@pytest.mark.parametrize("fault", ["away", "hangs"])
async def test_who_does_not_answer_is_shown_as_it_was(tmp_path, fault):
    """With the reason, and without hiding how old that is."""
    one, lost = FakeDataPlane("a"), FakeDataPlane("b")
    async with observed(tmp_path, one, lost) as (observer, controller):
        before = (await rows(observer))["b"]
        setattr(lost, fault, True)
        await until(lambda: not all(each.reachable for each in controller.fleet.pushers.values()))
        status = await observer.status([], None)
        row = next(each for each in status["dataplanes"] if each["name"] == "b")
        assert not status["converged"]
        assert not row["reachable"]
        assert row["error"] == ("unreachable: nobody listens" if fault == "away" else "no answer within 2 s")
        assert row["age_s"] > before["age_s"]
        assert {**row, "error": None, "reachable": True, "age_s": before["age_s"]} == before


async def test_who_was_never_heard_has_nothing_to_show(tmp_path):
    """And an age would say otherwise."""
    lost = FakeDataPlane("b")
    lost.away = True
    async with observed(tmp_path, FakeDataPlane("a"), lost) as (observer, _):
        row = (await rows(observer))["b"]
    assert (row["reachable"], row["generation"], row["age_s"]) == (False, None, 0.0)


async def test_who_was_asked_and_did_not_answer_in_time(tmp_path):
    """It answered the last look, so nothing else says what is wrong."""
    plane = FakeDataPlane("a")
    async with observed(tmp_path, plane) as (observer, controller):

        async def silent(call, *, timeout_s):
            if call.target == "/v1/status":
                plane.hangs = True
            try:
                return await FakeDataPlane.ask(plane, call, timeout_s=timeout_s)
            finally:
                plane.hangs = False

        plane.ask = silent
        row = (await rows(observer))["a"]
        assert controller.fleet.pushers[plane.endpoint].error is None
    assert (row["reachable"], row["error"]) == (False, "does not answer")


async def test_since_when_a_process_has_been_gone(tmp_path):
    """What its socket was left behind by is told."""
    plane = FakeDataPlane("a")
    async with observed(tmp_path, plane) as (observer, controller):
        controller.fleet.pushers[plane.endpoint].error = GoneError("a", "/a.sock", "2026-01-01T00:00:00Z")
        row = (await rows(observer))["a"]
    assert row["gone_since"] == "2026-01-01T00:00:00Z"


def drains(name):
    """Return a process that has given its name away."""
    plane = FakeDataPlane(name)

    async def ask(call, *, timeout_s):
        return {**await FakeDataPlane.ask(plane, call, timeout_s=timeout_s), "draining_since": "then"}

    plane.ask = ask
    return plane


async def test_who_drains_is_shown_until_it_has_ended(tmp_path):
    """In the order of their sockets; one that answers no more is none of them."""
    one, other, ended = drains("y"), drains("x"), drains("z")
    ended.away = True
    async with observed(tmp_path, FakeDataPlane("a"), draining=(one, other, ended)) as (observer, _):
        status = await observer.status([], None)
    assert [(row["name"], row["since"]) for row in status["draining"]] == [("x", "then"), ("y", "then")]
    assert status["converged"]


async def test_a_directory_that_cannot_be_read_hides_nobody_else(tmp_path):
    """Those who drain are not known then."""

    def nowhere():
        raise PlaceError("no such directory")

    plane = FakeDataPlane("a")
    async with daemon(tmp_path, [plane]) as controller:
        await controller.apply(proposal(), QUICK, BY)
        status = await Observer(controller, nowhere, None).status([], None)
    assert (status["draining"], [row["name"] for row in status["dataplanes"]]) == ([], ["a"])


def unhealthy(plane, key):
    """Let the checks of a data plane find a backend down."""

    async def ask(call, *, timeout_s):
        answer = json.loads(json.dumps(await FakeDataPlane.ask(plane, call, timeout_s=timeout_s)))
        for backend in answer["services"]["web"]["backends"] if call.target == "/v1/status" else ():
            if backend["id"] == key:
                backend["health"]["state"] = "down"
        return answer

    plane.ask = ask


async def test_discovery_is_told_which_backends_pass_checks(tmp_path):
    """Somebody's checks are enough; who has gone says nothing any more."""
    one, other = FakeDataPlane("a"), FakeDataPlane("b")
    unhealthy(one, "10.0.0.1:1")
    both = {("web", "10.0.0.1:1"), ("web", "10.0.0.2:1")}
    async with observed(tmp_path, one, other) as (observer, controller):
        await observer.look()
        assert controller.discovering.healthy == both
        del controller.fleet.pushers[other.endpoint]
        await observer.look()
        assert controller.discovering.healthy == {("web", "10.0.0.2:1")}


@pytest.mark.parametrize(("host", "is_here"), [(here(), True), ("elsewhere", False)])
async def test_what_somebody_else_pushes_again_and_again(tmp_path, host, is_here):
    """It is said who, and whether that is a process of this machine."""
    by = {"program": "lb-control run", "host": host, "pid": 7, "user": "root", "source": "/etc/other.yaml"}
    async with observed(tmp_path, FakeDataPlane("a")) as (observer, controller):
        for _ in range(2):
            controller.contest.may_push(by, time.monotonic())
        contested = (await observer.status([], None))["contested"]
    assert contested["said_by"] == f"lb-control run of root (pid 7 on {host}), from /etc/other.yaml"
    assert (contested["here"], contested["times"]) == (is_here, 2)


async def test_somebody_who_does_not_say_who_it_is(tmp_path):
    """An older version says nothing: it is not taken for one of this machine's."""
    async with observed(tmp_path, FakeDataPlane("a")) as (observer, controller):
        for _ in range(2):
            controller.contest.may_push(None, time.monotonic())
        contested = (await observer.status([], None))["contested"]
    assert (contested["said_by"], contested["here"]) == ("somebody who does not say who it is", False)


async def test_without_discovery_nobody_is_asked_for_it(tmp_path, monkeypatch):
    """With it, again and again."""
    monkeypatch.setattr("controlplane.daemon.status._HEALTH_S", 0.0)
    plane = FakeDataPlane("a")
    async with observed(tmp_path, plane) as (observer, controller):
        task = asyncio.ensure_future(observer.run())

        def asked():
            return plane.asked.count(("GET", "/v1/status"))

        looks = len(plane.asked)
        await until(lambda: len(plane.asked) > looks + 3)
        assert asked() == 0
        controller.discovering.active = True
        try:
            await until(lambda: asked() > 2)
        finally:
            controller.discovering.active = False
            task.cancel()


async def test_statuses_are_asked_when_they_are_too_old(tmp_path):
    """What is known will do while it is young enough; who is not known yet is asked."""
    plane = FakeDataPlane("a")
    async with observed(tmp_path, plane) as (observer, _):

        def asked():
            return plane.asked.count(("GET", "/v1/status"))

        (status,) = await observer.statuses(1000.0)
        assert (status["name"], asked()) == ("a", 1)
        await observer.statuses(1000.0)
        assert asked() == 1
        await observer.statuses(0.0)
        assert asked() == 2
