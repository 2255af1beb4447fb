"""Status and metrics, of one process and of workers, word for word: every number is another one."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dataplane.core.phase import Turn
from dataplane.net.reactor import Reactor
from dataplane.report import metrics
from dataplane.report.metrics import Metrics
from dataplane.report.status import Reporter
from dataplane.supervisor.dataplane import Supervisor
from dataplane.supervisor.node import CheckRelay
from dataplane.supervisor.worker_process import WorkerProcess
from dataplane.telemetry.events import Events
from tests.dataplane.report.counted import NOW, SERVICES, make_node

EXPECTED = Path(__file__).parent / "expected"
SNAPSHOT = SimpleNamespace(generation=7, hash="0123")
APPLIER: Any = SimpleNamespace(snapshot=SNAPSHOT, saved=True, pushed_by=None)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_BACKENDS", 2)
    monkeypatch.setattr(Reactor, "clock", lambda self: NOW)


def same(name: str, text: str) -> None:
    """Compare with what is kept; a file that is not there is written, and the test fails."""
    path = EXPECTED / name
    text = re.sub(r"(uptime_s\W+|lb_uptime_seconds |\"pid\": |pid=\")[0-9.e-]+", r"\1*", text) + "\n"
    text = re.sub(r"\"version\": \"[^\"]*\"", '"version": "*"', text)
    if not path.exists():
        path.write_text(text)
        raise AssertionError(f"{path} was not there")
    assert text == path.read_text()


def in_order(text: bytes) -> str:
    """Return the lines of a scrape in an order that means nothing."""
    return "\n".join(sorted(text.decode().splitlines()))


def numbered(member: Any, reporter: Reporter, told: Metrics, generation: int, active: int) -> Any:
    """Have a worker answer as workers do."""

    async def ask(kind: str, body: Any = None, fds: Any = ()) -> Any:
        del body, fds
        if kind == "metrics":
            return None, list(told.parts())
        parts: list[Any] = []
        for name, status in (await reporter.services()).items():
            backends: list[Any] = status.pop("backends")  # type: ignore[misc] # as it travels
            parts.append((name, status, []))
            parts.extend((name, None, [one]) for one in backends)
        return (generation, f"hash {generation}", active), parts

    member.ask = ask
    return member


class Crew:
    """Workers that are no processes."""

    def __init__(self) -> None:
        self.count = 3
        self.serving: dict[int, Any] = {}
        self.leaving: list[Any] = []

    async def ask_all(self, kind: str, body: Any = None, *, former: bool = False) -> list[Any]:
        """Ask each."""
        members = [*self.serving.values(), *(self.leaving if former else ())]
        return [(one, *await one.ask(kind, body)) for one in members]


async def test_one_process() -> None:
    """What a single process says."""
    node = await make_node(1000, ("web", "b", NOW - 7))
    node.overrides["web", "a"] = {"weight": (5, NOW - 3)}
    reporter = Reporter(node, lambda: NOW)
    same("single.json", json.dumps(await reporter.services(), indent=1, sort_keys=True))
    told = Metrics(node, APPLIER, lambda: 11, lambda: NOW, lambda: (12, 13))
    same("single.prom", in_order(await told.text()))


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
    own = await make_node(0)
    own.overrides["web", "a"] = {"weight": (5, NOW - 3)}
    events = Events(lambda kind, **fields: None, lambda: NOW, "instance")
    workers: Any = Crew()
    supervisor = Supervisor("main", own, APPLIER, workers, events)  # type: ignore[arg-type] # as much as is needed
    supervisor._reporter._wall_clock = lambda: NOW
    supervisor.dropped_lines = lambda: 3
    supervisor.relay = CheckRelay(lambda _: None)
    for index, node in enumerate(nodes):
        member: Any = WorkerProcess(index, index, lambda *_: None)
        member.life.turn(Turn.SERVE, NOW)
        member.pid = 100 + index
        reporter = Reporter(node, lambda: NOW)
        node.reactor.wheel = SimpleNamespace(at=lambda *_: None)  # type: ignore[assignment]
        reporter.outcomes.start()
        for running in node.running.values():
            looks = reporter.outcomes._of[running.service]._looks
            looks.appendleft((NOW - 10 - index, tuple(itertools.repeat(0, len(looks[0][1])))))
        told = Metrics(
            node,
            APPLIER,
            lambda index=index: 11 + index,
            lambda: NOW,
            lambda index=index: (50 + index, 60 + index),
        )
        numbered(member, reporter, told, 7, 40 + index)
        if index < 2:
            workers.serving[index] = member
        else:
            workers.leaving.append(member)
            member.life.turn(Turn.STOP, NOW)
    await supervisor.status()
    await supervisor.metrics()
    ended = workers.leaving.pop()
    ended.process = SimpleNamespace(returncode=0)
    supervisor.ended(ended)
    same("workers.json", json.dumps(await supervisor.status(), indent=1, sort_keys=True))
    same("workers.prom", in_order(await supervisor.metrics()))
    workers.serving[0].process = SimpleNamespace(returncode=-9)
    supervisor.ended(workers.serving.pop(0))
    workers.serving.clear()
    workers.leaving.clear()
    await asyncio.sleep(0)
    same("nobody.json", json.dumps(await supervisor.status(), indent=1, sort_keys=True))
    same("nobody.prom", in_order(await supervisor.metrics()))
