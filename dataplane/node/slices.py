"""Work that would hold up relays is done in slices, between which the loop has its turn.

A thread would be no help: it takes the interpreter's lock for five milliseconds at a time, and each of the loop's
system calls gives it away.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = ["SLICE", "in_slices", "json_pieces"]

SLICE: Final = 250
"""Backends handled between two turns of the loop: about a millisecond."""
R = TypeVar("R")


async def in_slices(steps: Generator[Any, None, R]) -> R:
    """Run a sliced computation to its end and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: R = stop.value
            return result
        await asyncio.sleep(0)


def json_pieces(value: object) -> Iterator[str]:
    """Yield JSON text in pieces: long lists, and dictionaries that hold some, are cut up."""
    if isinstance(value, dict) and _is_large(value):
        opening = "{"
        for key, item in value.items():
            yield f"{opening}{json.dumps(key)}: "
            yield from json_pieces(item)
            opening = ", "
        yield "}"
    elif isinstance(value, list) and len(value) > SLICE:
        opening = "["
        for start in range(0, len(value), SLICE):
            yield opening + json.dumps(value[start : start + SLICE])[1:-1]
            opening = ", "
        yield "]"
    else:
        yield json.dumps(value)


def _is_large(value: object) -> bool:
    """Return whether a long list is somewhere in nested dictionaries."""
    if isinstance(value, dict):
        return len(value) > SLICE or any(_is_large(item) for item in value.values())
    return isinstance(value, list) and len(value) > SLICE
