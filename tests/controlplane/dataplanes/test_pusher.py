"""Pushing: the newest wish wins, refusals are kept, overrides follow a restart, pauses grow."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from controlplane.core.backoff import Backoff
from controlplane.core.rollout import Target
from controlplane.dataplanes import requests
from controlplane.dataplanes.pusher import Pusher, Refused, Timing, Wish
from controlplane.errors import LateError, RefusedError, UnreachableError
from tests.controlplane.fakes import FakeDataPlane

PLACE = ("web", "a:1", "state")
FAST = Timing(look_s=0.001, retry_s=0.001, retry_max_s=0.002)


def services(weight=1, **more):
    """Make the services of a snapshot."""
    backend = {"id": "a:1", "address": "a:1", "weight": weight, "tier": 0, "state": "enabled"}
    return {"web": {"backends": [backend]}, **more}


def wish(generation, digest, words=None, content=None):
    """Make a wish."""
    body = {"version": 1, "generation": generation, "hash": digest, "services": content or services()}
    return Wish(Target(generation, digest), requests.encode(body), words or {})


class Ahead(list):
    """Collects what the pusher was ahead of."""


@contextlib.asynccontextmanager
async def pushing(plane, timing=FAST, clock=lambda: 0.0):
    """Run a pusher; yields it, what it reported as ahead, and a wait for any condition on it."""
    changed, ahead = asyncio.Event(), Ahead()
    pusher = Pusher(
        plane,
        on_ahead=ahead.append,
        on_change=changed.set,
        jitter=lambda: 1.0,
        clock=clock,
        timing=timing,
    )

    async def until(holds):
        while not holds():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.001)

    task = asyncio.create_task(pusher.run())
    try:
        yield pusher, ahead, until
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_wish_is_pushed_and_acked():
    """A data plane that runs something older gets the snapshot."""
    plane = FakeDataPlane()
    async with pushing(plane) as (pusher, _, until):
        first = wish(1, "x")
        pusher.want(first)
        await until(lambda: pusher.runs(first))
    assert (plane.generation, plane.hash) == (1, "x")


async def test_newest_wish_wins():
    """Of wishes that come while a data plane is away, only the last one is pushed."""
    plane = FakeDataPlane()
    plane.away = True
    async with pushing(plane) as (pusher, _, until):
        for generation in range(1, 6):
            pusher.want(wish(generation, f"h{generation}"))
            await until(lambda: isinstance(pusher.error, UnreachableError))
        plane.away = False
        await until(lambda: plane.generation == 5)
    assert plane.asked.count(("PUT", "/v1/snapshot")) == 1


async def test_refused_content_is_sent_once_until_it_changes():
    """A refusal is an answer: asking again would not change it."""
    plane = FakeDataPlane()
    plane.refuses = "bad"
    async with pushing(plane) as (pusher, _, until):
        bad = wish(1, "x", content=services(bad={"backends": []}))
        pusher.want(bad)
        await until(lambda: pusher.settled(bad))
        looks = len(plane.asked)
        await until(lambda: len(plane.asked) > looks + 5)
        assert plane.asked.count(("PUT", "/v1/snapshot")) == 1
        assert not pusher.runs(bad)
        assert "no such thing here" in str(pusher.error)
        good = wish(2, "y")
        pusher.want(good)
        await until(lambda: pusher.runs(good))
        assert pusher.error is None


class Deaf(FakeDataPlane):
    """Answers everything but a push, while it is deaf."""

    deaf = True

    async def ask(self, call, *, timeout_s):
        """Answer, or not."""
        if self.deaf and call.method == "PUT":
            raise LateError(self.endpoint.name, timeout_s)
        return await super().ask(call, timeout_s=timeout_s)


async def test_pushes_are_counted_by_what_became_of_them():
    """No answer, a refusal and an acknowledgement each count, and looks do not."""
    plane = Deaf()
    plane.refuses = "bad"
    async with pushing(plane) as (pusher, _, until):
        bad = wish(1, "x", content=services(bad={"backends": []}))
        pusher.want(bad)
        await until(lambda: pusher.pushes.failed == 2)
        plane.deaf = False
        await until(lambda: pusher.settled(bad))
        assert (pusher.pushes.refused, pusher.pushes.acked) == (1, 0)
        good = wish(2, "y")
        pusher.want(good)
        await until(lambda: pusher.runs(good))
        looks = len(plane.asked)
        await until(lambda: len(plane.asked) > looks + 3)
        assert (pusher.pushes.refused, pusher.pushes.acked) == (1, 1)
        assert pusher.pushes.failed >= 2


async def test_restarted_process_is_offered_refused_content_again():
    """Another process may answer otherwise: an image that was upgraded begins with the same pid."""
    plane = FakeDataPlane()
    plane.refuses = "bad"
    async with pushing(plane) as (pusher, _, until):
        bad = wish(1, "x", content=services(bad={"backends": []}))
        pusher.want(bad)
        await until(lambda: pusher.settled(bad))
        plane.refuses = None
        plane.restart()
        await until(lambda: pusher.runs(bad))


async def test_refused_content_is_offered_again_with_growing_pauses():
    """What a data plane objects to may lie with its machine, and go: nobody needs to change anything here then."""
    plane, now = FakeDataPlane(), [0.0]
    plane.refuses = "bad"
    async with pushing(plane, clock=lambda: now[0]) as (pusher, _, until):
        wanted = wish(1, "x", content=services(bad={"backends": []}))
        pusher.want(wanted)
        offered = []
        for moment in range(200):
            now[0] = float(moment)
            looks = plane.asked.count(("GET", "/v1/info"))
            await until(lambda looks=looks: plane.asked.count(("GET", "/v1/info")) > looks + 2)
            offered += [moment] * (plane.asked.count(("PUT", "/v1/snapshot")) - len(offered))
        assert offered == [0, 2, 6, 14, 30, 62, 122, 182]
        assert pusher.settled(wanted)
        plane.refuses = None
        now[0] = 242.0
        await until(lambda: pusher.runs(wanted))


async def test_refusal_for_a_reason_of_its_own_is_tried_again():
    """A 503 (an address that is taken) is about the machine, not the content."""
    plane = FakeDataPlane()
    plane.refuses, plane.refusal_status = "bad", 503
    async with pushing(plane) as (pusher, _, until):
        bad = wish(1, "x", content=services(bad={"backends": []}))
        pusher.want(bad)
        await until(lambda: plane.asked.count(("PUT", "/v1/snapshot")) > 1)
        plane.refuses = None
        await until(lambda: pusher.runs(bad))


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("keeps", [True, False])
async def test_restarted_data_plane_gets_snapshot_and_overrides_again(keeps, older):
    """Whatever it still knows, in the end it runs the wish and the overrides, also with the pid of before."""
    plane = FakeDataPlane()
    now = began = 0.0
    plane.uptime_s = lambda: now - began
    if older:
        plane.instance = None
    async with pushing(plane, clock=lambda: now) as (pusher, _, until):
        wanted = wish(1, "x", {PLACE: "drain"})
        pusher.want(wanted)
        await until(lambda: pusher.runs(wanted))
        plane.restart(keeps=keeps)
        now = began = 60.0
        await until(lambda: plane.generation == 1 and plane.overrides == {PLACE: "drain"})


async def test_override_is_sent_again_after_a_push():
    """A snapshot may end an override on the data plane that still holds here."""
    plane = FakeDataPlane()
    async with pushing(plane) as (pusher, _, until):
        pusher.want(wish(1, "x", {("web", "a:1", "weight"): 7}))
        await until(lambda: plane.overrides)
        second = wish(2, "y", {("web", "a:1", "weight"): 7}, services(weight=2))
        pusher.want(second)
        await until(lambda: pusher.runs(second))
        assert plane.overrides == {("web", "a:1", "weight"): 7}


async def test_overrides_are_sent_again_after_a_push_of_somebody_else():
    """Another content in between may have ended them, though what runs in the end is the wish."""
    plane = FakeDataPlane()
    async with pushing(plane) as (pusher, ahead, until):
        first = wish(1, "x", {PLACE: "drain"})
        pusher.want(first)
        await until(lambda: pusher.runs(first))
        plane.generation, plane.hash, plane.overrides = 2, "y", {}
        await until(lambda: ahead)
        plane.generation, plane.hash = 3, "x"
        third = wish(3, "x", {PLACE: "drain"})
        pusher.want(third)
        await until(lambda: plane.overrides == {PLACE: "drain"})


async def test_override_that_was_taken_back_ends():
    """The snapshot's own word, sent as a patch, ends an override."""
    plane = FakeDataPlane()
    async with pushing(plane) as (pusher, _, until):
        pusher.want(wish(1, "x", {PLACE: "drain"}))
        await until(lambda: plane.overrides)
        pusher.want(wish(1, "x", {PLACE: "enabled"}))
        await until(lambda: not plane.overrides)


async def test_override_of_a_backend_that_is_gone_blocks_nothing():
    """A 404 for one override does not stop the others, nor the acknowledgement."""
    plane = FakeDataPlane()
    async with pushing(plane) as (pusher, _, until):
        wanted = wish(1, "x", {("web", "gone", "state"): "drain", PLACE: "drain"})
        pusher.want(wanted)
        await until(lambda: pusher.runs(wanted))
        assert plane.overrides == {PLACE: "drain"}


async def test_data_plane_that_is_ahead_is_reported_and_not_pushed_to():
    """Only the controller can choose a higher generation."""
    plane = FakeDataPlane()
    plane.generation, plane.hash = 9, "other"
    async with pushing(plane) as (pusher, ahead, until):
        pusher.want(wish(3, "x"))
        await until(lambda: ahead)
    assert ("PUT", "/v1/snapshot") not in plane.asked
    assert ahead[0].generation == 9


async def test_without_a_wish_nothing_is_changed():
    """A daemon that knows nothing leaves everybody alone."""
    plane = FakeDataPlane()
    plane.generation, plane.hash = 9, "other"
    async with pushing(plane) as (pusher, _, until):
        await until(lambda: len(plane.asked) > 3)
        assert pusher.reachable
    assert {method for method, _ in plane.asked} == {"GET"}


async def test_hanging_data_plane_is_late_and_recovers():
    """It is named as late, and gets the wish when it answers again."""
    plane = FakeDataPlane()
    plane.hangs = True
    async with pushing(plane) as (pusher, _, until):
        wanted = wish(1, "x")
        pusher.want(wanted)
        await until(lambda: isinstance(pusher.error, LateError))
        assert not pusher.settled(wanted)
        plane.hangs = False
        await until(lambda: pusher.runs(wanted))


def test_pauses_grow_to_a_bound_and_are_jittered():
    """Each failure doubles the pause, up to the bound; chance takes up to half of it off."""
    timing = Timing(look_s=9.0, retry_s=0.25, retry_max_s=5.0)

    def pauses(jitter):
        pusher = Pusher(
            FakeDataPlane(),
            on_ahead=lambda _: None,
            on_change=lambda: None,
            jitter=lambda: jitter,
            clock=lambda: 0.0,
            timing=timing,
        )
        return [pusher._pause(answered=number == 0) for number in range(8)]

    assert pauses(1.0) == [9.0, 0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert pauses(0.0) == [9.0, 0.125, 0.25, 0.5, 1.0, 2.0, 2.5, 2.5]


def test_refused_is_known_until_it_is_due_again():
    """The pause doubles for the same content and process, and begins anew for another of either."""
    refused = Refused(Backoff(2.0, 60.0, least=0.5), lambda: 1.0)
    error = RefusedError("a", 422, {})
    refused.note(Target(1, "x"), "first", error, 0.0)
    assert (refused.known(1.9), refused.known(2.0)) == ((Target(1, "x"), "first"), None)
    refused.note(Target(1, "x"), "first", error, 2.0)
    assert refused.known(5.9) is not None
    refused.note(Target(1, "x"), "second", error, 6.0)
    assert (refused.known(8.0), refused.includes(Target(1, "x"))) == (None, True)
    refused.taken()
    assert (refused.error, refused.includes(Target(1, "x"))) == (None, False)
