"""The daemon's verdict on its node: asked for, and dated."""

from __future__ import annotations

import pytest

from controlplane.core.drain import Turn
from controlplane.core.readiness import Reason
from controlplane.daemon import standing
from controlplane.daemon.standing import Standing
from controlplane.operations.drain_file import DrainFile
from tests.controlplane.fakes import ReadyFleet


@pytest.fixture(autouse=True)
def _moments(monkeypatch):
    """Time goes on at each look at the clock."""
    moments = (f"2026-01-01T00:00:{second:02}Z" for second in range(60))
    monkeypatch.setattr(standing, "now_text", lambda: next(moments))


async def test_a_verdict_has_its_date(tmp_path):
    """Not ready until somebody was asked; the date is that of the turn, not of what else has changed."""
    fleet, record = ReadyFleet(), DrainFile(tmp_path)
    seen = Standing(fleet, record)
    assert (seen.verdict.ready, seen.since[-3:]) == (False, "00Z")
    assert await seen.look()
    assert (seen.verdict.ready, seen.since[-3:]) == (True, "01Z")
    assert not await seen.look()
    record.turn(Turn.LOWER, "ann")
    assert await seen.look()
    assert (seen.verdict.ready, seen.verdict.preferred, seen.since[-3:]) == (True, False, "01Z")
    record.turn(Turn.WITHDRAW, "ann")
    assert await seen.look()
    assert (seen.verdict.ready, seen.since[-3:]) == (False, "02Z")
    assert [reason for reason, _ in seen.verdict.why] == [Reason.WITHDRAWN]


async def test_a_data_plane_that_cannot_be_reached(tmp_path):
    """It is a reason, with what is known of it."""
    fleet = ReadyFleet()
    seen = Standing(fleet, DrainFile(tmp_path))
    fleet.error = ConnectionError("nobody listens")
    await seen.look()
    assert seen.verdict.reason == "data_plane: a: nobody listens"
