"""Many data planes at once: who is asked, what comes instead of an answer, and whom a wish reaches."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from controlplane.core.rollout import Target
from controlplane.dataplanes import requests
from controlplane.dataplanes.fleet import Fleet
from controlplane.dataplanes.pusher import Timing, Wish
from controlplane.errors import PlaceError, UnreachableError
from tests.controlplane.fakes import FakeDataPlane

INFO = requests.get("/v1/info")
WISH = Wish(Target(1, "x"), b'{"generation":1,"hash":"x","services":{}}')


@contextlib.asynccontextmanager
async def fleet(*planes):
    """Run a fleet of these, each looked at once."""
    by_endpoint = {plane.endpoint: plane for plane in planes}
    made = Fleet(
        lambda: tuple(by_endpoint),
        connect=by_endpoint.__getitem__,
        on_ahead=lambda _: None,
        on_change=lambda: None,
        timing=Timing(look_s=0.002, retry_s=0.002, retry_max_s=0.004),
    )
    task = asyncio.create_task(made.run())
    try:
        await made.wait_looked(20.0)
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def pair():
    """One that answers and one that is away."""
    here, away = FakeDataPlane("a"), FakeDataPlane("b")
    away.away = True
    return here, away


async def test_who_is_away_is_asked_only_when_everybody_is():
    """Then its error stands for its answer."""
    here, away = pair()
    async with fleet(here, away) as made:
        assert list(await made.ask(INFO, 1.0)) == [here.endpoint]
        answers = await made.ask(INFO, 1.0, everybody=True)
        assert answers[here.endpoint]["name"] == "a"
        assert isinstance(answers[away.endpoint], UnreachableError)


async def test_dry_run_tells_why_somebody_was_not_asked():
    """Nobody is left out of the answer."""
    here, away = pair()
    async with fleet(here, away) as made:
        answers = await made.dry_run(requests.put_snapshot(WISH.body, dry_run=True), 1.0)
        assert answers[here.endpoint]["changes"] == []
        assert str(answers[away.endpoint]) == "unreachable: nobody listens"


async def test_services_are_those_of_the_newest():
    """Without an answer there are none, or it is said who does not answer and why."""
    old, new = FakeDataPlane("a"), FakeDataPlane("b")
    old.generation, new.generation, new.services = 1, 2, {"web": {"backends": []}}
    async with fleet(old, new) as made:
        assert await made.services() == {"web": {"backends": []}}
        old.away = new.away = True
        assert await made.services() == {}
        with pytest.raises(PlaceError, match="no data plane answers: a: unreachable: nobody listens; b: "):
            await made.services(must=True)


async def test_a_wish_is_settled_when_everybody_runs_it_or_cannot():
    """Each has a row that says which."""
    here, away = pair()
    async with fleet(here, away) as made:
        made.want(WISH)
        rows = await made.settled(WISH, 20.0)
    assert [(row["name"], row["result"], row["generation"]) for row in rows] == [
        ("a", "ok", 1),
        ("b", "unreachable", None),
    ]
