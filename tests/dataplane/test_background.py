"""What goes on beside relaying begins again when it fails, and says so; of several things at once none outlives them."""

from __future__ import annotations

import asyncio
import sys

import pytest

from dataplane import background
from dataplane.background import Background, first_of, load, tell_bugs, together


@pytest.fixture
def told(monkeypatch):
    """What is told, of a loop whose pauses are short."""
    monkeypatch.setattr(background, "FIRST_PAUSE_S", 0.001)
    return []


async def running(told, begin):
    """Run work in a group of its own, until nothing is left of it."""
    tell_bugs(lambda kind, **fields: told.append((kind, fields)))
    async with asyncio.TaskGroup() as group:
        begin(Background(group))


async def test_work_that_raises_begins_again(told):
    """Each failure is told with its traceback, and the work goes on."""
    tries = []

    async def work():
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("of ours")

    await running(told, lambda background: background.keep("checking", work))
    assert len(tries) == 3
    assert [kind for kind, _ in told] == ["unhandled", "unhandled"]
    assert "checking failed, and begins again in" in told[0][1]["message"]
    assert "ValueError: of ours" in told[0][1]["traceback"]


async def test_work_that_fails_in_a_group_of_its_own_is_the_same(told):
    """A prober's tasks are in a group; what one raises is a group of errors."""
    tries = []

    async def fail():
        raise KeyError("x")

    async def work():
        tries.append(1)
        if len(tries) == 1:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())

    await running(told, lambda background: background.keep("checking", work))
    assert len(tries) == 2
    assert "KeyError: 'x'" in told[0][1]["traceback"]


async def test_work_that_is_done_once_is_not_begun_again(told):
    """It is told, and nothing else ends."""

    async def work():
        raise ValueError("of ours")

    await running(told, lambda background: background.once("reading", work))
    assert [fields["message"] for _, fields in told] == ["reading failed"]


async def test_what_nobody_handles_is_told(told):
    """A callback of the loop that raises is told in the same manner."""
    done = asyncio.Event()

    def fail():
        done.set()
        raise ValueError("in a callback")

    tell_bugs(lambda kind, **fields: told.append((kind, fields)))
    asyncio.get_running_loop().call_soon(fail)
    await done.wait()
    assert "ValueError: in a callback" in told[0][1]["traceback"]


async def test_cancelling_ends_it(told):
    """The end of the process is no failure."""
    begun = asyncio.Event()

    async def work():
        begun.set()
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        kept = Background(group)
        kept.keep("checking", work)
        await begun.wait()
        kept.cancel()
    assert not told


async def test_results_are_in_order_and_errors_among_them():
    """One that fails is its own result, and the others come to their end."""
    gate = asyncio.Event()

    async def late():
        await gate.wait()
        return "late"

    async def fail():
        gate.set()
        raise ValueError("x")

    first, second = await together([late(), fail()])
    assert first == "late"
    assert isinstance(second, ValueError)


async def test_cancelling_ends_all_of_it():
    """Nothing goes on by itself."""
    ended = []

    async def wait():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(together([wait(), wait()]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
    assert len(ended) == 2


async def test_the_first_event_or_the_end_of_the_time():
    """The events themselves tell which it was, and nobody waits for them any more."""
    one, two = asyncio.Event(), asyncio.Event()
    two.set()
    await first_of(one, two)
    two.clear()
    await first_of(one, two, within_s=0.0)
    assert len(asyncio.all_tasks()) == 1


async def test_what_is_loaded_lets_the_loop_have_its_turn():
    """It goes on meanwhile, with short turns; when all is loaded, turns are as long as before."""
    usual, turns = sys.getswitchinterval(), []
    loop = asyncio.get_running_loop()

    def modules():
        turns.append(sys.getswitchinterval())
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()

    await together([load(modules), load(modules)])
    assert len(turns) == 2
    assert min(turns) < usual / 10
    assert sys.getswitchinterval() == usual


async def test_what_cannot_be_loaded():
    """Is an error, and turns are as long as before."""

    def modules():
        raise ImportError("broken")

    usual = sys.getswitchinterval()
    with pytest.raises(ImportError, match="broken"):
        await load(modules)
    assert sys.getswitchinterval() == usual
