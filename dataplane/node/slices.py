"""Work that would hold up relays is done in slices, between which the loop has its turn.

A thread would be no help: it takes the interpreter's lock for five milliseconds at a time, and each of the loop's
system calls gives it away. Nor may the garbage collector hold them up: neither connections nor changes leave cycles behind, so
reference counts free nearly everything, and what a full collection would find is not worth what it costs: with 10,000
backends it stops every relay, and a supervisor's change, for 60 to 100 ms, and one apply set off several.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

SLICE: Final = 250
"""Backends handled between two turns of the loop: about a millisecond."""
YOUNG: Final = 50_000
"""Net allocations between two collections of the youngest generation, which take about 3 ms at most."""
MIDDLE: Final = 20
FULL: Final = 1_000
"""Collections of the middle generation until a full one: days, not seconds."""
MANY: Final = 10_000
"""Objects that a change leaves behind: those of a thousand new backends, or of a few thousand with other weights."""
R = TypeVar("R")
T = TypeVar("T")


@contextmanager
def lasting() -> Iterator[None]:
    """Collect nothing meanwhile, and leave what was made out of every collection if it is much: it stays, and is no garbage.

    The objects of 10,000 backends take the collector 100 ms, some milliseconds at a time. What is garbage by then stays, too,
    unless reference counts free it: so this is for changes, and not for clients.
    """
    gc.disable()
    try:
        yield
    finally:
        if gc.get_count()[0] > MANY:
            gc.freeze()
        gc.enable()


async def sliced(items: Iterable[T], size: int = SLICE) -> AsyncIterator[T]:
    """Yield `items`, giving the loop its turn after each `size` of them."""
    for count, item in enumerate(items, 1):
        yield item
        if count % size == 0:
            await asyncio.sleep(0)


async def pieces(items: Sequence[T], size: int = SLICE) -> AsyncIterator[Sequence[T]]:
    """Yield `items` in pieces of at most `size`, giving the loop its turn after each."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
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


def tune_collector() -> None:
    """Leave out of every collection what exists when the process starts, and collect from now on, but seldom."""
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, FULL)
    gc.enable()
