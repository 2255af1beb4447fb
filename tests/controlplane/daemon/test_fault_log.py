"""What the daemon logs of data planes and sources: the changes, once each."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.daemon.fault_log import Noticing, plane_faults, source_faults
from controlplane.dataplanes.pusher import Pusher
from controlplane.errors import LateError, UnreachableError
from tests.controlplane.fakes import FakeDataPlane


def told(*looks, **options):
    """Return what is logged over these looks."""
    lines: list[str] = []
    noticing = Noticing(lines.append, **options)
    for look in looks:
        noticing.take(look)
    return lines


def test_each_change_is_one_line():
    """The same fault in other words is no news; another kind of fault is, and so is its end."""
    faults = [None, ("late", "no answer"), ("late", "still none"), ("refused", "no"), None, None]
    assert told(*({"x": fault} for fault in faults)) == ["x: no answer", "x: no", "x: in order again"]


def test_comings_and_goings_are_told_of_whom_they_matter():
    """A data plane that stops takes its socket along: it has gone, and is found again."""
    looks = ({"a": None}, {}, {"a": None}, {"a": None, "b": ("late", "no answer")})
    assert told(*looks, comings=True) == ["a: found", "a: gone", "a: found", "b: no answer"]
    assert told(*looks) == ["b: no answer"]


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ({"state": "ok", "last_error": None}, None),
        ({"state": "stale", "last_error": None, "note": "what anna applied holds"}, None),
        ({"state": "stale", "last_error": "unreachable"}, ("stale", "unreachable")),
        ({"state": "denied", "last_error": "status 403"}, ("denied", "status 403")),
        (
            {"state": "held", "last_error": None, "held": {"count": 4}},
            ("held", "4 that it no longer lists are kept"),
        ),
    ],
)
def test_faults_of_sources(source, fault):
    """What has not answered yet, and what an operator wants, is none."""
    assert source_faults([{"name": "s", **source}]) == {"s": fault}


async def test_faults_of_data_planes():
    """Nothing is said of one that nobody has looked at; late and gone are one kind, a refusal is another."""

    def pusher(plane):
        return Pusher(plane, on_ahead=print, on_change=seen.set, jitter=lambda: 0.0, clock=lambda: 0.0)

    seen = asyncio.Event()
    plane = FakeDataPlane("a")
    one = pusher(plane)
    assert plane_faults([one]) == {}
    plane.away = True
    task = asyncio.create_task(one.run())
    await seen.wait()
    assert plane_faults([one]) == {"data plane a": ("unreachable", "unreachable: nobody listens")}
    seen.clear()
    plane.away = False
    one.wake()
    await seen.wait()
    assert plane_faults([one]) == {"data plane a": None}
    task.cancel()
    one.error = LateError("a", 2.0)
    assert plane_faults([one])["data plane a"] == ("unreachable", "no answer within 2 s")
    one.error = UnreachableError("a", "x")
    assert plane_faults([one])["data plane a"] == ("unreachable", "unreachable: x")
