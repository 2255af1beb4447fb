"""What happens, told to the log and to followers."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from dataplane.telemetry.events import BACKLOG, HISTORY, Events, draw_instance, rfc3339


@pytest.fixture
def events():
    """A hub whose clock stands still."""
    logged = []
    hub = Events(lambda kind, **fields: logged.append((kind, fields)), lambda: 0.0)
    hub.logged = logged
    return hub


async def take(follower, count):
    """Return the next few events of a follower."""
    async with asyncio.timeout(10):
        return [await anext(follower) for _ in range(count)]


def test_time():
    """Times are written in UTC, with milliseconds."""
    assert rfc3339(0.0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(1767225600.1239) == "2026-01-01T00:00:00.123Z"


async def test_everybody_is_told(events):
    """The log and each follower get every event, in order, with running numbers."""
    followers = [events.follow(None, 10) for _ in range(2)]
    tasks = [asyncio.create_task(take(follower, 2)) for follower in followers]
    await asyncio.sleep(0)
    events.emit("one", x=1)
    events.emit("two")
    for task in tasks:
        got = await task
        assert [(event.number, event.kind) for event in got] == [(1, "one"), (2, "two")]
        assert got[0].fields == {"at": "1970-01-01T00:00:00.000Z", "x": 1}
    assert events.logged == [("one", {"x": 1}), ("two", {})]
    for follower in followers:
        await follower.aclose()


async def test_who_comes_back(events):
    """A follower that names the last event it saw gets what it missed, as far back as is kept."""
    for number in range(HISTORY + 10):
        events.emit("tick", number=number)
    async with aclosing(events.follow(HISTORY + 7, 10)) as follower:
        assert [event.number for event in await take(follower, 3)] == [HISTORY + 8, HISTORY + 9, HISTORY + 10]
    async with aclosing(events.follow(0, 10)) as follower:
        assert (await take(follower, 1))[0].number == 11


async def test_ids_are_of_one_process():
    """Who names an event of an earlier process has seen nothing of this one, whatever its number was."""
    hub = Events(lambda *_, **__: None, lambda: 0.0, "bb")
    hub.emit("one")
    async with aclosing(hub.follow(0, 10)) as follower:
        (event,) = await take(follower, 1)
    assert hub.id_of(event) == "bb-1"
    assert (hub.after("bb-1"), hub.after("aa-9"), hub.after("nonsense")) == (1, 0, 0)
    assert (hub.after("7"), hub.after(""), hub.after("0")) == (7, None, 0)


async def test_silence(events):
    """When nothing happens, a follower is given None now and then."""
    async with aclosing(events.follow(None, 0.01)) as follower:
        assert await take(follower, 2) == [None, None]
        events.emit("at last")
        assert (await take(follower, 1))[0].kind == "at last"


async def test_a_follower_who_does_not_read(events):
    """It loses the oldest, is told how many, and costs nobody else anything."""
    async with aclosing(events.follow(None, 10)) as follower:
        first = asyncio.create_task(take(follower, 1))
        await asyncio.sleep(0)
        events.emit("first")
        await first
        for number in range(BACKLOG + 5):
            events.emit("tick", number=number)
        dropped, following = await take(follower, 2)
        assert (dropped.kind, dropped.fields["events"]) == ("dropped", 5)
        assert following.fields["number"] == 5
        assert following.number == dropped.number + 1, "who comes back with its id would miss some"


async def test_the_end(events):
    """`close` ends every follower's stream, and those who come later at once."""
    async with aclosing(events.follow(None, 10)) as follower:
        waiting = asyncio.create_task(take(follower, 1))
        await asyncio.sleep(0)
        events.close()
        with pytest.raises(StopAsyncIteration):
            await waiting
    async with aclosing(events.follow(None, 10)) as follower:
        with pytest.raises(StopAsyncIteration):
            await take(follower, 1)


def test_each_process_has_an_id_of_its_own():
    """16 hexadecimal digits; two draws are two ids."""
    one = draw_instance()
    assert len(bytes.fromhex(one)) == 8
    assert one != draw_instance()
