"""Status and metrics, word for word: every number is another one."""

from __future__ import annotations

import json

import pytest

from dataplane.report import reader
from dataplane.report.figures import Figures, ListenerFigures, total
from dataplane.report.reader import Reader
from dataplane.report.report import describe
from tests.dataplane.report.counted import NOW, in_order, make_node, report_of, same, stop_time


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_time(monkeypatch)
    monkeypatch.setattr(reader, "MAX_BACKENDS", 2)


async def test_one_process() -> None:
    """What a single process says of itself."""
    node = await make_node(1000, ("web", "b", NOW - 7))
    node.overrides["web", "a"] = {"weight": (5, NOW - 3)}
    report = report_of(node, Reader(node, lambda: 11, lambda: (12, 13)))
    status = await report.status()
    same("single.json", json.dumps(status["services"], indent=1, sort_keys=True))
    assert status["workers"][0]["active"] == sum(one["active"] for one in status["services"].values())
    same("single.prom", in_order(await report.metrics()))


async def test_moments_are_times_of_the_day() -> None:
    """Inside they are on the monotonic clock."""
    node = await make_node(0)
    told = await describe(await total(Reader(node).parts(each=True)), 1_800_000_000.0)
    assert told["web"]["backends"][0]["health"]["since"].startswith("2027-01-15T09:")


async def test_an_address_that_nobody_accepts_from_is_not_shown() -> None:
    """Its number counts where somebody does, and that is for whoever knows the addresses to say."""
    node = await make_node(1000)
    figures = await total(Reader(node).parts(each=True))
    figures.add(Figures(listeners={("web", "unix:/gone"): ListenerFigures(5, None)}))
    told = await describe(figures, 0.0)
    assert [one["address"] for one in told["web"]["listeners"]] == ["unix:/x", "unix:/y"]


async def test_an_address_of_a_service_that_no_worker_tells_of_yet_is_not_shown() -> None:
    """A supervisor listens for a new service before its workers tell of it; status is asked for in that moment, too."""
    figures = Figures(listeners={("new", "127.0.0.1:1"): ListenerFigures(0, "accepting")})
    assert await describe(figures, 0.0) == {}
