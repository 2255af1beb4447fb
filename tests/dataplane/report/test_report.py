"""Status and metrics, word for word: every number is another one."""

from __future__ import annotations

import json

import pytest

from dataplane.report import reader
from dataplane.report.reader import Reader
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
