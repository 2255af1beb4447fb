"""Metrics of figures."""

from __future__ import annotations

from typing import Any

import pytest

from dataplane.report import reader
from dataplane.report.figures import Figures, total
from dataplane.report.metrics import Runs, families
from dataplane.report.reader import Reader
from tests.dataplane.report.counted import NOW, make_node


def told_of(figures: Figures) -> dict[tuple[Any, ...], float]:
    """Return each value by name and labels' values."""
    return {
        (name, *labels.values()): value
        for *_, samples in families(figures, Runs(1, "0", saved=True, uptime_s=1.0))
        for name, labels, value in samples
    }


async def test_backends_of_a_large_service_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its numbers are the sums of theirs, what is observed is how many; there are no histograms."""
    told = Reader(await make_node(1000, ("big", "unix:/2", NOW)))
    each = told_of(await total(told.parts(each=False)))
    monkeypatch.setattr(reader, "MAX_BACKENDS", 2)
    monkeypatch.setattr(reader, "CROWD_SLICE", 2)
    summed = told_of(await total(told.parts(each=False)))
    ids = ("unix:/1", "unix:/2", "unix:/3")
    checked = 0
    for (name, *labels), value in summed.items():
        if labels[:2] == ["big", "_all"]:
            assert value == sum(each[name, "big", id_, *labels[2:]] for id_ in ids), name
            assert not name.startswith(
                ("lb_connect_seconds", "lb_first_byte", "lb_backend_tls_handshake_seconds")
            )
            checked += 1
    assert checked > 20
    assert summed["lb_backend_health", "big", "_all", "ejected"] == 1
    assert ("lb_connect_seconds_count", "web", "a") in summed


async def test_no_more_than_so_many_have_series_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The services that come after those are summed."""
    monkeypatch.setattr(reader, "MAX_IN_ALL", 4)
    told = told_of(await total(Reader(await make_node(1000)).parts(each=False)))
    assert {key[1:3] for key in told if key[0] == "lb_backend_weight"} == {
        ("big", "unix:/1"),
        ("big", "unix:/2"),
        ("big", "unix:/3"),
        ("web", "_all"),
    }


async def test_of_what_only_draining_workers_have_nothing_is_said_but_counts() -> None:
    """They are told of no change any more."""
    parts = list(Reader(await make_node(1000)).parts(each=False))
    for part in parts:
        part.silence()
    told = told_of(await total(parts))
    names = {key[0] for key in told}
    assert {"lb_connections_total", "lb_listener_accepted_total", "lb_backend_connections_active"} <= names
    assert not names & {"lb_panic", "lb_listener_accepting", "lb_backend_weight", "lb_backend_health"}
    assert "lb_table_info" not in names
