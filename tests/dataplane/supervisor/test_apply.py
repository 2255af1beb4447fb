"""A change in all workers or in none, with workers that only note what they are asked."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import pytest

from dataplane.core.health import HealthState
from dataplane.errors import PeerError, PeerGone, Refused
from dataplane.ipc.messages import dump, load, unpack_columns
from dataplane.net.goal import PoolShare
from dataplane.net.reactor import Reactor
from dataplane.node.apply import EMPTY, Applier
from dataplane.node.node import Node
from dataplane.report.figures import Figures
from dataplane.report.reader import Reader
from dataplane.supervisor.apply import WorkerReplicas
from dataplane.telemetry.events import Events
from schemas.api import BackendPatch
from tests.dataplane.node.bench import Unsaved
from tests.dataplane.node.test_apply import Noted, body
from tests.dataplane.supervisor.fleet import ADDRESS, fleet


@asynccontextmanager
async def applying(count=2):
    """Have workers, and an applier that changes what they run."""
    async with fleet(count) as site:
        reactor = Reactor(asyncio.get_running_loop(), 1024)
        node = Node(reactor, Events(lambda *_, **__: None, time.time), Random(1), PoolShare(cap=0))
        site.replicas = WorkerReplicas(node, site.lending, site.sockets, site.board)
        site.applier = Applier(node, Unsaved(), Noted(), site.replicas)
        yield site
        reactor.epoll.close()


def asked(site, *kinds):
    """Return which workers were asked or told these, in order."""
    return [(index, kind) for index, kind, _ in site.noted if kind in kinds]


async def test_all_stage_before_any_commits():
    """Two phases: the first may fail, the second cannot; then hand-offs are allowed again."""
    async with applying() as site:
        await site.applier.apply(body(1, "a"))
        steps = [kind for _, kind in asked(site, "stage", "commit", "put", "arm", "abandon")]
        assert steps == ["stage"] * 2 + ["commit"] * 2 + ["put"] * 2 + ["arm"] * 2
        change = next(what for _, kind, what in site.noted if kind == "stage")
        assert change[:2] == (1, site.applier.snapshot.hash)
        assert set(await unpack_columns(change.columns)) == {"s", ("s", "a")}
        assert site.sockets.finished == 1


async def test_workers_hear_the_difference():
    """Of what they run; the columns stay with the names, and verdicts are told of backends that are new."""
    async with applying() as site:
        await site.applier.apply(body(1, "a", "b"))
        first = site.applier.snapshot.hash
        backend = site.applier.node.running["s"].service.backends["a"]
        backend.health.decide(HealthState.UP, "", 0.0)
        site.noted.clear()
        following = body(2, "a", "b")
        following["services"]["s"]["backends"][1]["weight"] = 3
        await site.applier.apply(following)
        change = next(what for _, kind, what in site.noted if kind == "stage")
        assert (change.base, change.columns) == ((1, first), None)
        assert [load(piece) for piece in change.services[0].slices] == [
            [("b", "127.0.0.1:2", 3, 0, "enabled")]
        ]
        assert [what for _, kind, what in site.noted if kind == "commit"] == [[], []]


async def test_a_worker_that_runs_something_else_is_sent_all():
    """With what checks have found of all backends; the other one is sent the difference alone."""
    async with applying() as site:
        checked = {"health": {"active": {"type": "tcp"}}}
        await site.applier.apply(body(1, "a", "b", **checked))
        for backend in site.applier.node.running["s"].service.backends.values():
            backend.health.decide(HealthState.UP, "", 0.0)
        site.noted.clear()
        behind, ask = site.workers.serving[1], site.workers.serving[1].ask

        async def refuse_once(kind, body=None, fds=()):
            answer = await ask(kind, body, fds)
            return (False, []) if kind == "stage" and body.base is not None else answer

        behind.ask = refuse_once
        following = body(2, "a", "b", **checked)
        following["services"]["s"]["backends"][1]["weight"] = 3
        await site.applier.apply(following)
        staged = [(index, what.base is None) for index, kind, what in site.noted if kind == "stage"]
        assert sorted(staged) == [(0, False), (1, False), (1, True)]
        whole = next(what for _, kind, what in site.noted if kind == "stage" and what.base is None)
        assert len(load(whole.services[0].slices[0])) == 2
        assert set(await unpack_columns(whole.columns)) == {"s", ("s", "a"), ("s", "b")}
        told = {index: {one[1] for one in what} for index, kind, what in site.noted if kind == "commit"}
        assert told == {0: {"b"}, 1: {"a", "b"}}


async def test_clients_are_kept_out_of_what_goes_once_all_have_agreed():
    """Not before: a refusal must leave everything as it is."""
    async with applying() as site:
        site.fails[1, "stage"] = PeerError("no")
        with pytest.raises(Refused):
            await site.applier.apply(body(1, "a"))
        assert not site.sockets.kept_out
        site.fails.clear()
        await site.applier.apply(body(1, "a"))
        assert site.sockets.kept_out == [[ADDRESS]], "it is not in the snapshot"


async def test_one_refusal_and_all_forget_it():
    """Nobody commits, the columns are those of what runs, and the answer names the worker."""
    async with applying() as site:
        await site.applier.apply(body(1, "a"))
        site.noted.clear()
        site.fails[1, "stage"] = PeerError("out of memory")
        with pytest.raises(Refused, match="worker 1 refused: out of memory") as refused:
            await site.applier.apply(body(2, "b"))
        assert (refused.value.status, refused.value.code) == (503, "worker_refused")
        assert asked(site, "commit", "abandon") == [(0, "abandon"), (1, "abandon")]
        assert site.applier.snapshot.generation == 1
        assert site.board.assign({"s", ("s", "a")}).keys() == {"s", ("s", "a")}


async def test_one_that_dies_has_no_say():
    """The change is made: its successor begins with whatever runs then."""
    async with applying() as site:
        site.fails[0, "stage"] = site.fails[0, "commit"] = PeerGone()
        await site.applier.apply(body(1, "a"))
        assert site.applier.snapshot.generation == 1


async def test_one_that_cannot_commit_is_ended():
    """The others run it already."""
    async with applying() as site:
        first = site.workers.serving[0]
        site.fails[0, "commit"] = PeerError("a bug")
        await site.applier.apply(body(1, "a"))
        assert first.process.ended.is_set()
        assert (0, "worker_killed") in site.told
        assert site.applier.snapshot.generation == 1


async def test_a_bug_of_ours_is_no_refusal():
    """What is no answer of a worker is raised as it is; nothing has changed all the same."""
    async with applying() as site:
        site.fails[0, "stage"] = ValueError("a bug")
        with pytest.raises(ValueError, match="a bug"):
            await site.applier.apply(body(1, "a"))
        assert asked(site, "abandon", "commit") == [(0, "abandon"), (1, "abandon")]


async def test_an_override_that_a_worker_cannot_make():
    """It is refused, with the reason."""
    async with applying() as site:
        await site.applier.apply(body(1, "a"))
        await site.applier.patch("s", "a", BackendPatch(state="drain"))
        told = [what for _, kind, what in site.noted if kind == "stage_words"]
        assert told == [("s", [("a", "drain", 1)], dump({}))] * 2
        site.noted.clear()
        site.fails[1, "stage_words"] = PeerError("no")
        with pytest.raises(Refused, match="no"):
            await site.applier.patch("s", "a", BackendPatch(weight=3))
        assert asked(site, "commit_words", "abandon") == [(0, "abandon"), (1, "abandon")]
        assert site.applier.node.running["s"].service.backends["a"].spec.weight == 1


async def test_many_overrides_take_two_phases():
    """All stage before any commits; a worker that cannot commit is ended, one that dies has no say."""
    async with applying() as site:
        await site.applier.apply(body(1, "a", "b"))
        site.noted.clear()
        patches = {"b": BackendPatch(weight=3), "a": BackendPatch(state="drain")}
        await site.applier.patch_all("s", {"backends": patches})
        told = [("b", "enabled", 3), ("a", "drain", 1)]
        assert site.noted == [
            *((index, "stage_words", ("s", told, dump({}))) for index in (0, 1)),
            *((index, "commit_words", None) for index in (0, 1)),
        ]
        first, site.fails[0, "commit_words"] = site.workers.serving[0], PeerError("a bug")
        site.fails[1, "stage_words"] = site.fails[1, "commit_words"] = PeerGone()
        await site.applier.patch_all("s", {"backends": patches})
        assert first.process.ended.is_set()


async def test_every_worker_drains_its_connections():
    """All are told, whatever the others answer; one that cannot is a refusal, one that dies has no connection left."""
    async with applying() as site:
        await site.applier.apply(body(1, "a"))
        site.noted.clear()
        await site.applier.drain_all(draining=True)
        assert site.noted == [(0, "drain_all", True), (1, "drain_all", True)]
        site.fails[0, "drain_all"] = PeerGone()
        await site.applier.drain_all(draining=False)
        assert site.noted[-1] == (1, "drain_all", False)
        site.fails[0, "drain_all"] = PeerError("a bug")
        with pytest.raises(Refused, match="worker 0 refused: a bug"):
            await site.applier.drain_all(draining=False)


async def test_a_new_worker_is_told_what_runs():
    """Before the first snapshot nothing; a change that was refused in between is not among it."""
    async with applying() as site:
        worker = site.workers.serving[0]
        staged = lambda: [what[:2] for _, kind, what in site.noted if kind == "stage"][-1]  # noqa: E731
        await site.replicas.brief(worker)
        assert staged() == (0, EMPTY.hash)
        await site.applier.apply(body(1, "a"))
        site.fails[1, "stage"] = PeerError("no")
        with pytest.raises(Refused):
            await site.applier.apply(body(2, "b"))
        site.noted.clear()
        await site.replicas.brief(worker)
        assert staged() == (1, site.applier.snapshot.hash)
        assert [kind for _, kind, _ in site.noted] == ["stage", "commit", "put", "arm"]


async def test_a_plan_adds_up_what_all_workers_hold():
    """Those who drain as well: their clients are cut by the same change."""
    async with applying() as site:
        await site.applier.apply(body(1, "a", "b"))

        async def report(kind, body=None, fds=()):
            (told,) = [part for part in Reader(site.applier.node).parts(each=True) if part.backends]
            one = replace(told.backends["s", "a"], active=3, pooled=1)
            return (), [Figures(), Figures(backends={("s", "a"): one})]

        for worker in site.workers.serving.values():
            worker.ask = report
        planned = await site.applier.plan(body(2))
        assert planned["impact"]["drain"] == [{"service": "s", "id": "a", "connections": 6}]
        assert planned["impact"]["pool"] == [{"service": "s", "id": "a", "connections": 2}]
