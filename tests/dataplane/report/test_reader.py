"""Counters as figures."""

from __future__ import annotations

import pytest

from dataplane.report import reader
from dataplane.report.figures import Figures
from dataplane.report.reader import Reader
from tests.dataplane.report.counted import make_node


async def test_a_connection_that_ends_meanwhile_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a service and its backends have carried is read in one step, whatever happens between two parts."""
    monkeypatch.setattr(reader, "SLICE", 1)
    node = await make_node(1000)
    service = node.running["web"].service
    told = Figures()
    for part in Reader(node).parts(each=True):
        told.add(part)
        if "web" in part.services:
            flow = next(iter(service.flows))
            assert flow.backend is not None
            flow.backend.totals.bytes_in += flow.client.received  # as `Service.on_end` does
            service.totals.bytes_in += flow.client.received
            service.flows.remove(flow)
    totals = [one.bytes_in for (name, _), one in told.backends.items() if name == "web"]
    live = sum(flow.client.received for flow in service.flows)
    kept = sum(backend.totals.bytes_in for backend in service.backends.values())
    assert sum(totals) == kept + live
    assert told.services["web"].bytes_in == service.totals.bytes_in + live


async def test_parts_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop has its turn after a bounded number of backends."""
    monkeypatch.setattr(reader, "SLICE", 2)
    node = await make_node(0)
    assert [len(part.backends) for part in Reader(node).parts(each=True)] == [0, 0, 2, 1, 0, 2]


async def test_it_is_not_ready_while_accepting_is_paused() -> None:
    """Clients who are sent here would wait."""
    node = await make_node(1000)
    assert Reader(node).not_ready() is None
    node.listeners["web unix:/y"].paused = True
    assert Reader(node).not_ready() == "accepting is paused on unix:/y: out of descriptors"
