"""What becomes of a bug of ours in the daemon: it is told in the log, with its traceback.

What only shows, follows or remembers begins again after a pause, which doubles while it keeps failing. What decides ends the
daemon: half of it is worse than none, data planes go on without, and the next start begins with what is on disk.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

__all__ = ["Lines", "kept", "tell_bug", "tell_bugs"]

FIRST_PAUSE_S: Final = 1.0
MOST_PAUSE_S: Final = 60.0


class Lines(Protocol):
    """Takes lines."""

    def __call__(self, message: str, **more: str) -> None:
        """Take one, and what belongs to it."""


def tell_bug(log: Lines, message: str, error: BaseException | None) -> None:
    """Tell of one."""
    log(message, traceback="" if error is None else "".join(traceback.format_exception(error)))


def tell_bugs(log: Lines) -> None:
    """Have the running loop tell of what nobody handles."""

    def handle(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        tell_bug(log, f"a bug of ours: {context.get('message', '')}", context.get("exception"))

    asyncio.get_running_loop().set_exception_handler(handle)


async def kept(name: str, work: Callable[[], Coroutine[Any, Any, None]], log: Lines) -> None:
    """Do `work` until it returns; when it raises, tell, and begin again."""
    loop = asyncio.get_running_loop()
    pause_s = FIRST_PAUSE_S
    while True:
        began = loop.time()
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - a bug of ours in what only shows must not end what decides
            if loop.time() - began > MOST_PAUSE_S:
                pause_s = FIRST_PAUSE_S
            tell_bug(log, f"a bug of ours: {name} failed, and begins again in {pause_s:g} s", error)
        else:
            return
        await asyncio.sleep(pause_s)
        pause_s = min(MOST_PAUSE_S, 2 * pause_s)
