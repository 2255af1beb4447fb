"""Work that would hold up relays is done in slices, between which the loop has its turn.

A thread would be no help: it takes the interpreter's lock for five milliseconds at a time, and each of the loop's
system calls gives it away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterable
from typing import Any, Final, TypeVar

__all__ = ["SLICE", "in_slices", "sliced"]

SLICE: Final = 250
"""Backends handled between two turns of the loop: about a millisecond."""
R = TypeVar("R")
T = TypeVar("T")


async def sliced(items: Iterable[T], size: int = SLICE) -> AsyncIterator[T]:
    """Yield `items`, giving the loop its turn after each `size` of them."""
    for count, item in enumerate(items, 1):
        yield item
        if count % size == 0:
            await asyncio.sleep(0)


async def in_slices(steps: Generator[Any, None, R]) -> R:
    """Run a sliced computation to its end and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: R = stop.value
            return result
        await asyncio.sleep(0)
