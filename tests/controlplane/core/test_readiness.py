"""One verdict: ready or not, preferred or not, and every reason."""

from __future__ import annotations

import pytest

from controlplane.core.drain import Drain, Phase
from controlplane.core.readiness import Reason, readiness

ENABLED = Drain()


def at(phase: Phase) -> Drain:
    """Return a record of this phase."""
    return Drain(phase, "ann", "2026-01-01T00:00:00Z")


def test_ready():
    """Every data plane is, and nobody takes the node out."""
    verdict = readiness({"a": None, "b": None}, ENABLED)
    assert (verdict.ready, verdict.preferred, verdict.reason) == (True, True, "")


@pytest.mark.parametrize(
    ("planes", "why"),
    [
        ({}, [Reason.NO_DATA_PLANE]),
        ("looked for /run/lb/dataplane-*.sock", [Reason.NO_DATA_PLANE]),
        ({"a": None, "b": "no answer"}, [Reason.DATA_PLANE]),
        ({"a": "draining", "b": "no answer"}, [Reason.DATA_PLANE] * 2),
    ],
)
def test_data_planes(planes, why):
    """Each that is not ready is a reason, and so is that there is none; the words say which, and what it says."""
    verdict = readiness(planes, ENABLED)
    assert not verdict.ready
    assert not verdict.preferred
    assert [reason for reason, _ in verdict.why] == why
    if isinstance(planes, str):
        assert planes in verdict.reason
    elif planes:
        assert "data_plane: b: no answer" in verdict.reason


@pytest.mark.parametrize(
    ("phase", "ready", "preferred", "why"),
    [
        (Phase.ENABLED, True, True, []),
        (Phase.LOWERED, True, False, []),
        (Phase.WITHDRAWN, False, False, [Reason.WITHDRAWN]),
        (Phase.DRAINING, False, False, [Reason.DRAINING]),
        (Phase.DRAINED, False, False, [Reason.DRAINED]),
    ],
)
def test_phases(phase, ready, preferred, why):
    """Lowered it is ready and not preferred; from withdrawn on it is not ready, and the reason says whose word that is."""
    verdict = readiness({"a": None}, at(phase))
    assert (verdict.ready, verdict.preferred) == (ready, preferred)
    assert [reason for reason, _ in verdict.why] == why
    if why:
        assert "by ann since 2026-01-01T00:00:00Z" in verdict.reason
        assert "lb-control node enable" in verdict.reason


def test_every_phase_has_its_answer():
    """A phase that is added has to be thought of here."""
    assert {readiness({"a": None}, at(phase)).ready for phase in (Phase.ENABLED, Phase.LOWERED)} == {True}
    for phase in set(Phase) - {Phase.ENABLED, Phase.LOWERED}:
        assert not readiness({"a": None}, at(phase)).ready


def test_what_cannot_be_read_is_not_ready():
    """What is not known does not count; all reasons are told."""
    verdict = readiness({"a": "late"}, "node.json: damaged")
    assert not verdict.ready
    assert verdict.reason == "unknown: node.json: damaged; data_plane: a: late"
