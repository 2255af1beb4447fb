"""Several things at once, in a group of their own: when it is over, nothing of it goes on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

__all__ = ["first_of", "together"]

T = TypeVar("T")


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T | Exception]:
    """Do all of it, and return what came of each, in order; one that raises is its own result, and ends no other."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_outcome(one)) for one in work]
    return [task.result() for task in tasks]


async def _outcome(work: Coroutine[Any, Any, T]) -> T | Exception:
    try:
        return await work
    except Exception as error:  # noqa: BLE001 - whoever asked for all of it decides what each error means
        return error


async def first_of(*events: asyncio.Event, within_s: float | None = None) -> None:
    """Wait until one of them is set, but no longer than so long; the events themselves tell which."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(event.wait()) for event in events]
        await asyncio.wait(tasks, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
