"""The daemon counts nodes whenever somebody comes or goes, and when the time of one that went is up."""

from __future__ import annotations

import asyncio
import contextlib

from controlplane.core import share
from controlplane.daemon.sharing import Sharing
from tests.controlplane.fakes import FakeDataPlane
from tests.controlplane.operations.test_controller import BY, QUICK, daemon, here, shared, until


class Nodes:
    """Counts what a test says last; None: Consul is away, and the last answer says how many there were."""

    def __init__(self, live):
        self._live = live

    def live_nodes(self):
        """Return the last answer."""
        return next((each for each in reversed(self._live) if each is not None), None)

    def trouble(self):
        """Return something while Consul is away."""
        return "away" if self._live[-1] is None else None


@contextlib.asynccontextmanager
async def sharing(controller, live, **more):
    """Have somebody count."""
    made = Sharing(controller, Nodes(live), **more)
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_limits_follow_the_nodes(tmp_path, monkeypatch):
    """Who comes counts at once; who goes when its time is up, though nothing else happens; what is not known changes nothing."""
    monkeypatch.setattr(share, "HOLD_S", 0.02)
    plane, live = FakeDataPlane(), [None]
    async with daemon(tmp_path, [plane]) as controller:
        await controller.apply(shared(), QUICK, BY)
        async with sharing(controller, live) as made:
            for count, part in ((2, 50), (4, 25), (1, 100)):
                live.append(count)
                made.look()
                await until(lambda part=part: here(plane) == part)
            live.append(None)
            made.look()
            live.append(2)
            made.look()
            await until(lambda: here(plane) == 50)
        origins = [each["by"] for each in (await controller.accepted.history())["history"]]
    assert origins == ["op", "2 nodes", "4 nodes", "1 node", "2 nodes"]


async def test_who_went_counts_until_its_time_is_up(tmp_path):
    """By the clock, and not a moment before."""
    plane, live, now = FakeDataPlane(), [3], [1000.0]
    async with daemon(tmp_path, [plane]) as controller:
        await controller.apply(shared(), QUICK, BY)
        async with sharing(controller, live, clock=lambda: now[0]) as made:
            await until(lambda: here(plane) == 33)
            live.append(2)
            made.look()
            for now[0] in (1001.0, 1009.9):
                made.look()
                asked = len(plane.asked)
                await until(lambda asked=asked: len(plane.asked) > asked + 2)
                assert here(plane) == 33
            now[0] = 1020.0
            made.look()
            await until(lambda: here(plane) == 50)


async def test_who_went_while_consul_is_away_counts_on(tmp_path):
    """What Consul said last is no word for now: nobody's time is up."""
    plane, live, now = FakeDataPlane(), [3], [1000.0]
    async with daemon(tmp_path, [plane]) as controller:
        await controller.apply(shared(), QUICK, BY)
        async with sharing(controller, live, clock=lambda: now[0]) as made:
            await until(lambda: here(plane) == 33)
            for number, moment in ((2, 1001.0), (None, 1002.0), (None, 1020.0), (2, 1021.0), (2, 1030.9)):
                live.append(number)
                now[0] = moment
                made.look()
                asked = len(plane.asked)
                await until(lambda asked=asked: len(plane.asked) > asked + 2)
                assert here(plane) == 33
            now[0] = 1031.0
            made.look()
            await until(lambda: here(plane) == 50)


async def test_a_start_without_consul_divides_as_before(tmp_path):
    """The number outlives the daemon, and what Consul says then counts from the beginning."""
    plane = FakeDataPlane()
    async with daemon(tmp_path, [plane]) as controller:
        await controller.apply(shared(), QUICK, BY)
        async with sharing(controller, [3]):
            await until(lambda: here(plane) == 33)
    live = [None]
    async with daemon(tmp_path, [plane]) as controller, sharing(controller, live) as made:
        assert controller.accepted.state.share == 3
        await controller.apply(shared(60), QUICK, BY)
        assert here(plane) == 20
        live.append(4)
        made.look()
        await until(lambda: here(plane) == 15)
