"""Several things at once, of which nothing goes on when they are over."""

from __future__ import annotations

import asyncio

from dataplane.together import first_of, together


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
