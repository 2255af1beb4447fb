"""Following the data planes' events: told once, in spite of breaks, restarts and comings and goings."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from controlplane.daemon.events import follow
from controlplane.dataplanes.endpoint import Endpoint
from controlplane.errors import UnreachableError
from tests.support.wait import DEADLINE_S

HERE = Endpoint("a", "/nowhere/dataplane-a.sock")


class Stream:
    """A data plane's events, in turns: each connection gets the next list, and then the end or an error."""

    def __init__(self, *turns, breaks=False):
        self.turns = list(turns)
        self.breaks = breaks
        self.endpoint = HERE

    async def events(self):
        """Yield one turn's events; with no turn left, wait for ever."""
        if not self.turns:
            await asyncio.Event().wait()
        for event in self.turns.pop(0):
            yield event
        if self.breaks:
            raise UnreachableError("a", "gone")


@contextlib.asynccontextmanager
async def following(stream):
    """Follow a data plane; yields a function that waits for so many events."""
    told = []
    news = asyncio.Event()

    def publish(event):
        told.append(event)
        news.set()

    async def wait(number):
        while len(told) < number:
            news.clear()
            await news.wait()
        return told

    task = asyncio.create_task(follow(stream, publish, pause_s=0.0))
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield wait
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def event(number, second, kind="backend_up", instance="aa"):
    """Make an event that happened at a second."""
    return f"{instance}-{number}", kind, {"at": f"2026-01-01T00:00:{second:02}.000Z", "backend": "b"}


@pytest.mark.parametrize("breaks", [False, True])
async def test_what_is_repeated_is_told_once(breaks):
    """A new connection brings the remembered ones again; only what is later is told."""
    stream = Stream([event(1, 1), event(2, 1)], [event(1, 1), event(2, 1), event(3, 2)], breaks=breaks)
    async with following(stream) as wait:
        told = await wait(3)
        assert [each["at"][17:19] for each in told] == ["01", "01", "02"]
        assert told[0] == {**event(1, 1)[2], "id": "aa-1", "type": "backend_up", "dataplane": "a"}


@pytest.mark.parametrize("older", [False, True])
async def test_new_process_counts_from_one_again(older):
    """After a restart numbers are small: everything is new. Ids of an older version say nothing of the process."""
    first, second = ("1", "1") if older else ("aa-1", "bb-1")
    stream = Stream([(first, *event(1, 1)[1:])], [(second, *event(1, 5, "started")[1:])])
    async with following(stream) as wait:
        assert [each["type"] for each in await wait(2)] == ["backend_up", "started"]


@pytest.mark.parametrize("again", [False, True], ids=["one stream", "a new connection"])
async def test_a_clock_that_is_set_back_hides_nothing(again):
    """What happens after the clock was set back is told as it happens, with its odd stamp."""
    before, after = event(1, 50), event(2, 7)
    turns = [[before], [before, after]] if again else [[before, after]]
    async with following(Stream(*turns)) as wait:
        assert [each["at"][17:19] for each in await wait(2)] == ["50", "07"]


async def test_no_more_is_remembered_than_may_be_told_again():
    """A data plane that tells for months costs no more memory than one that has just begun."""
    many = [event(number, 1) for number in range(5000)]
    async with following(Stream(many, many[-256:], [event(5000, 1)])) as wait:
        told = await wait(5001)
        assert [each["id"] for each in told] == [f"aa-{number}" for number in range(5001)]
