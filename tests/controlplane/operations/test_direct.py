"""Commands without a daemon: what is different, since nobody goes on afterwards. What is the same: `together/test_both_ways`."""

from __future__ import annotations

import asyncio
import threading

import pytest

from controlplane.dataplanes import requests
from controlplane.dataplanes.endpoint import Endpoint
from controlplane.errors import LateError, PlaceError, UnreachableError
from controlplane.operations.direct import Direct, Threaded
from controlplane.operations.options import ApplyOptions
from controlplane.store import State, Store
from tests.controlplane.fakes import Blocking, FakeDataPlane
from tests.controlplane.operations.test_controller import proposal

QUICK = ApplyOptions(timeout_s=10.0)
FORCED = ApplyOptions(timeout_s=10.0, force=True)


class Contested(FakeDataPlane):
    """One to which somebody else pushes between the dry run and the push, so many times."""

    def __init__(self, times):
        super().__init__()
        self.times = times

    def _put(self, body, *, dry):
        answer = super()._put(body, dry=dry)
        if dry and self.times:
            self.times -= 1
            self.generation, self.hash = self.generation + 1, f"theirs-{self.times}"
        return answer


def direct(tmp_path, *planes):
    """Return the way to these data planes."""
    return Direct(lambda: tuple(map(Blocking, planes)), Store(tmp_path), "op")


def test_somebody_who_pushes_at_the_same_time_is_told_of(tmp_path):
    """Theirs goes on, nothing is written down, and the next apply has a generation above it."""
    plane = Contested(1)
    way = direct(tmp_path, plane)
    report = way.apply(proposal(), QUICK)
    (row,) = report["dataplanes"]
    assert (report["converged"], row["result"], row["generation"]) == (False, "overtaken", 1)
    assert "has pushed generation 1: apply again, or use --force" in row["error"]
    assert (plane.hash, Store(tmp_path).load()) == ("theirs-0", State())
    assert way.apply(proposal(), QUICK)["generation"] == 2


@pytest.mark.parametrize(("times", "result"), [(2, "ok"), (9, "overtaken")])
def test_force_tries_again(tmp_path, times, result):
    """Somebody who pushes now and then is overruled; somebody who does so without end is told of."""
    report = direct(tmp_path, Contested(times)).apply(proposal(), FORCED)
    assert [row["result"] for row in report["dataplanes"]] == [result]


def test_what_nobody_runs_is_not_written_down(tmp_path):
    """A daemon that starts later must not begin with what an operator saw fail; what one of two runs is kept."""
    one, other = FakeDataPlane("a"), FakeDataPlane("b")
    one.away = other.away = True
    way = direct(tmp_path, one, other)
    assert [row["result"] for row in way.apply(proposal(), QUICK)["dataplanes"]] == ["unreachable"] * 2
    assert Store(tmp_path).load() == State()
    one.away = False
    report = way.apply(proposal(), QUICK)
    assert [row["result"] for row in report["dataplanes"]] == ["ok", "unreachable"]
    assert (Store(tmp_path).load().hash, "kept" in report) == (one.hash, False)


def test_word_about_one_backend_pushes_no_snapshot(tmp_path):
    """What a data plane runs by other means stays, though something else was applied before."""
    plane = FakeDataPlane()
    way = direct(tmp_path, plane)
    way.apply(proposal(), QUICK)
    plane.generation, plane.hash = 7, "its own"
    assert way.patch("web", "10.0.0.1:1", {"state": "drain"})["dataplanes"][0]["result"] == "ok"
    assert (plane.generation, plane.hash) == (7, "its own")
    assert plane.overrides == {("web", "10.0.0.1:1", "state"): "drain"}
    assert [each.value for each in Store(tmp_path).load().overrides] == ["drain"]


def test_word_that_nobody_hears_is_not_kept(tmp_path):
    """Nobody would tell it later."""
    plane = FakeDataPlane()
    way = direct(tmp_path, plane)
    way.apply(proposal(), QUICK)
    plane.away = True
    with pytest.raises(PlaceError, match="no data plane answers: a: unreachable: nobody listens"):
        way.patch("web", "10.0.0.1:1", {"state": "drain"})
    assert Store(tmp_path).load().overrides == ()


class Slow:
    """A client that answers when it is let go."""

    endpoint = Endpoint("slow", "/nowhere")

    def __init__(self):
        self.let_go = threading.Event()

    def ask(self, _call, *, timeout_s):
        """Wait for that."""
        self.let_go.wait()
        raise UnreachableError("slow", "too late")


async def test_thread_that_hangs_is_left_behind():
    """Its question is late in time, and its answer afterwards is nobody's."""
    slow = Slow()
    with pytest.raises(LateError, match=r"no answer within 0\.01 s"):
        await Threaded(slow).ask(requests.get("/v1/info"), timeout_s=0.01)
    slow.let_go.set()
    with pytest.raises(UnreachableError, match="too late"):
        await Threaded(slow).ask(requests.get("/v1/info"), timeout_s=20.0)
    await asyncio.sleep(0)
