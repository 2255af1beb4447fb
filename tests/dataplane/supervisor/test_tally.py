"""What a supervisor says of its workers, word for word: every number is another one."""

from __future__ import annotations

import itertools
import json
import pickle
from types import SimpleNamespace
from typing import Any

import pytest

from dataplane.core.phase import Turn
from dataplane.net.backend import Backend
from dataplane.net.reactor import Reactor
from dataplane.report import reader as reading
from dataplane.report.reader import Reader
from dataplane.supervisor.tally import WorkerTally
from dataplane.supervisor.workers import WorkerProcess
from tests.dataplane.net.rig import spec
from tests.dataplane.report.counted import NOW, SERVICES, in_order, make_node, report_of, same, stop_time


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_time(monkeypatch)
    monkeypatch.setattr(reading, "MAX_BACKENDS", 2)


def answering(worker: Any, reader: Reader, clients: int) -> None:
    """Have a worker answer as workers do."""

    async def ask(kind: str, body: Any) -> Any:
        assert kind == "report"
        return (7, "hash 7", clients), [pickle.loads(pickle.dumps(part)) for part in reader.parts(**body)]  # noqa: S301

    worker.ask = ask


class Workers:
    """As much of them as is asked."""

    def __init__(self) -> None:
        self.count = 3
        self.serving: dict[int, Any] = {}
        self.leaving: list[Any] = []

    async def ask_all(self, kind: str, body: Any, *, former: bool) -> list[Any]:
        """Ask each."""
        assert former
        return [(one, *await one.ask(kind, body)) for one in [*self.serving.values(), *self.leaving]]


def end(tally: WorkerTally, worker: Any, status: int) -> None:
    """Have its process end."""
    worker.process = SimpleNamespace(returncode=status)
    tally.ended(worker)
    worker.life.turn(Turn.END, NOW)


async def test_workers() -> None:
    """What a supervisor says of two workers, one that drains, and one that has ended."""
    services = {**SERVICES, "old": {"listen": ["unix:/old"], "backends": ["unix:/gone"]}}
    nodes = [
        await make_node(10000, ("web", "b", NOW - 7)),
        await make_node(20000, ("web", "b", NOW - 9), ("big", "unix:/2", NOW - 2)),
        await make_node(30000, ("web", "a", NOW - 1), services=services),
        await make_node(40000, services=services),
    ]
    next(iter(nodes[1].listeners.values())).paused = True
    own: Any = await make_node(0)
    own.overrides["web", "a"] = {"weight": (5, NOW - 3)}
    workers: Any = Workers()
    tally = WorkerTally(own, workers, lambda: 3)
    report = report_of(own, tally)
    for index, node in enumerate(nodes):
        worker: Any = WorkerProcess(index, index, lambda *_: None)
        worker.pid = 100 + index
        reader = Reader(
            node, itertools.repeat(11 + index).__next__, itertools.repeat((50 + index, 60 + index)).__next__
        )
        reader.outcomes.start()
        for running in node.running.values():
            looks = reader.outcomes._of[running.service]._looks
            looks.appendleft((NOW - 10 - index, tuple(itertools.repeat(0, len(looks[0][1])))))
        answering(worker, reader, 40 + index)
        if index < 2:
            workers.serving[index] = worker
        else:
            workers.leaving.append(worker)
            worker.life.turn(Turn.STOP, NOW)
    await report.status()
    await report.metrics()
    end(tally, workers.leaving.pop(), 0)
    same("workers.json", json.dumps(await report.status(), indent=1, sort_keys=True))
    same("workers.prom", in_order(await report.metrics()))
    end(tally, workers.serving.pop(0), -9)
    workers.serving.clear()
    workers.leaving.clear()
    same("nobody.json", json.dumps(await report.status(), indent=1, sort_keys=True))
    same("nobody.prom", in_order(await report.metrics()))


class Hearing:
    """A tally, and what it passes on."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        events = SimpleNamespace(emit=lambda kind, **fields: self.told.append((kind, fields)))
        node: Any = SimpleNamespace(events=events, running={})
        self.workers: Any = Workers()
        self.tally = WorkerTally(node, self.workers, lambda: 0)

    def worker(self, *, leaving: bool = False) -> Any:
        """Return one."""
        worker: Any = WorkerProcess(1, 1, self.tally.heard)
        worker.pid = 7
        worker.life.turn(Turn.STOP if leaving else Turn.SERVE, NOW)
        self.workers.serving[1] = worker
        return worker


@pytest.mark.parametrize(("draining", "state"), [(False, "paused"), (True, "closing")])
async def test_what_nobody_accepts_from_says_so(*, draining: bool, state: str) -> None:
    """Its clients wait for a worker, or for nobody: then it closes in good order, and is not paused."""
    own: Any = await make_node(0)
    workers: Any = Workers()
    tally = WorkerTally(own, workers, lambda: 0)
    info: Any = {}
    figures = (await tally.tally(info, each=True, draining=draining)).figures
    assert {each.state for each in figures.listeners.values()} == {state}


async def test_what_is_heard_is_passed_on_with_the_workers_number() -> None:
    """Ejections are remembered while they last, and as long as their worker."""
    site = Hearing()
    worker = site.worker()
    worker.notice("event", ("backend_ejected", {"service": "web", "backend": "a"}))
    worker.notice("event", ("backend_ejected", {"service": "web", "backend": "b"}))
    worker.notice("event", ("backend_reinstated", {"service": "web", "backend": "b"}))
    assert site.tally.ejected == {(7, "web", "a")}
    assert site.told[0] == ("backend_ejected", {"worker": 1, "service": "web", "backend": "a"})
    end(site.tally, worker, -9)
    assert site.tally.ejected == set()


def test_workers_learn_what_checks_have_changed() -> None:
    """And of a check that passed, if a worker has ejected the backend; of nothing else."""
    site = Hearing()
    told: list[Any] = []
    site.workers.tell_all = lambda kind, body: told.append((kind, body))
    wanted = spec(backends=["127.0.0.1:2"])
    backend = Backend(Reactor(SimpleNamespace(), 1024), wanted.backends[0], wanted)  # type: ignore[arg-type]
    site.tally.judged("s", backend, changed=False, passed=True)
    site.tally.judged("s", backend, changed=True, passed=False)
    site.tally.ejected.add((7, "s", backend.id))
    site.tally.judged("s", backend, changed=False, passed=True)
    site.tally.judged("s", backend, changed=False, passed=False)
    verdicts = [("s", "127.0.0.1:2", "unknown", "not checked yet", True, passed) for passed in (False, True)]
    assert told == [("judge", [one]) for one in verdicts]


async def test_readiness_is_that_of_the_workers() -> None:
    """There has to be one, and none that ran out of descriptors just now."""
    site = Hearing()
    assert site.tally.not_ready() == "no worker is there"
    worker = site.worker()
    assert site.tally.not_ready() is None
    site.tally.heard(worker, "local_error", {"cause": "too many open files (EMFILE)"})
    assert site.tally.not_ready() == "accepting is paused in a worker: out of descriptors"


@pytest.mark.parametrize(
    ("leaving", "status", "kinds"),
    [(True, 0, ["worker_drained"]), (True, 1, ["worker_died"]), (False, 0, [])],
)
async def test_how_a_worker_ended(*, leaving: bool, status: int, kinds: list[str]) -> None:
    """It has drained if it was told to and ended well; of one that accepted, others tell."""
    site = Hearing()
    end(site.tally, site.worker(leaving=leaving), status)
    assert [kind for kind, _ in site.told] == kinds


async def test_who_ends_while_others_answer_counts_once() -> None:
    """Its last word is part of the past already when its answer is added."""
    own: Any = await make_node(0)
    workers: Any = Workers()
    tally = WorkerTally(own, workers, lambda: 0)
    told = list(Reader(await make_node(1000)).parts(each=True))
    worker: Any = WorkerProcess(0, 0, lambda *_: None)
    worker.life.turn(Turn.STOP, NOW)
    worker.last_told = {True: told}

    async def ask(*_: Any) -> Any:
        return (7, "", 0), told

    worker.ask = ask
    workers.leaving.append(worker)
    report = report_of(own, tally)
    before = (await report.status())["services"]["web"]["totals"]

    async def ask_and_end(*_: Any) -> Any:
        end(tally, worker, 0)
        return (7, "", 0), told

    worker.ask = ask_and_end
    assert (await report.status())["services"]["web"]["totals"] == before
    workers.leaving.clear()
    assert (await report.status())["services"]["web"]["totals"] == before
