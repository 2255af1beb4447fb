"""What a process does beside relaying, and what becomes of a bug of ours that is met there.

Theory of operation:

1. Relaying goes on, whatever fails here. Work that is to go on as long as the process (checks, names, saving, the
   watchdog) is told in the log and in the events (`unhandled`, with its traceback) when it raises, and begins again after
   a pause, which doubles while it keeps failing. Work that is done once is told, and that is all.
2. What no task owns is told in the same manner: callbacks of the loop, handlers of the reactor, one check of many.
3. All of it belongs to a group, which nothing outlives. `kept` raises nothing into it.
4. Several things that are done at once (`together`, `first_of`) have a group of their own: when it is over, nothing of it
   goes on.
5. Code that is not needed before clients are served is loaded beside them (`load`).
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

Work = Callable[[], Coroutine[Any, Any, None]]
T = TypeVar("T")

FIRST_PAUSE_S: Final = 1.0
MOST_PAUSE_S: Final = 60.0
"""Also how long work has to go well until its pauses are short again."""
USUAL_TURN_S: Final = sys.getswitchinterval()
LOADING_TURN_S: Final = 0.0002
"""While code is loaded, whoever wants the interpreter has it after so long; the usual 5 ms are long for a relay."""


def tell_bugs(emit: Callable[..., None]) -> None:
    """Have the running loop tell of what nobody handles (rule 2)."""

    def handle(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        message, error = context.get("message", ""), context.get("exception")
        emit("unhandled", message=message, traceback="" if error is None else traced(error))

    asyncio.get_running_loop().set_exception_handler(handle)


def report_bug(message: str, error: Exception) -> None:
    """Tell of a bug of ours that was met, and that ends nothing."""
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})


def traced(error: BaseException) -> str:
    """Return the traceback of an error, as Python writes it."""
    return "".join(traceback.format_exception(error))


class Background:
    """Tasks of one process."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._tasks: list[asyncio.Task[None]] = []

    def keep(self, name: str, work: Work) -> None:
        """Do `work` until it returns; when it raises, tell, and begin again."""
        _ = self.begin(name, work)

    def begin(self, name: str, work: Work) -> asyncio.Task[None]:
        """Do the same for somebody who waits for its end, or cancels it."""
        return self._add(_kept(name, work))

    def once(self, name: str, work: Work) -> None:
        """Do `work` once; when it raises, tell."""
        _ = self._add(_tried(name, work, "failed"))

    def cancel(self) -> None:
        """End all of it."""
        for task in self._tasks:
            task.cancel()

    def _add(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._group.create_task(work)
        self._tasks = [one for one in self._tasks if not one.done()] + [task]
        return task


async def _kept(name: str, work: Work) -> None:
    loop = asyncio.get_running_loop()
    pause_s = FIRST_PAUSE_S
    while True:
        began = loop.time()
        if await _tried(name, work, f"failed, and begins again in {pause_s:g} s"):
            return
        if loop.time() - began > MOST_PAUSE_S:
            pause_s = FIRST_PAUSE_S
        await asyncio.sleep(pause_s)
        pause_s = min(MOST_PAUSE_S, 2 * pause_s)


async def _tried(name: str, work: Work, outcome: str) -> bool:
    """Do `work`, and return whether it went well."""
    try:
        await work()
    except Exception as error:  # noqa: BLE001 - rule 1: a bug of ours here must not end what relays
        report_bug(f"{name} {outcome}", error)
        return False
    return True


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


async def load(modules: Callable[[], None]) -> None:
    """Have modules imported, in a thread, between whose turns the loop has its own."""
    sys.setswitchinterval(LOADING_TURN_S)
    try:
        await asyncio.to_thread(modules)
    finally:
        sys.setswitchinterval(USUAL_TURN_S)
