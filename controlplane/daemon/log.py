"""The daemon's log: lines of JSON to standard error, by a thread, so that neither a full disk nor a slow reader stops it.

A bug of ours is told in it, with its traceback. What only shows, follows or remembers begins again after a pause, which doubles
while it keeps failing. What decides ends the daemon: half of it is worse than none, data planes go on without, and the next
start begins with what is on disk.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import threading
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, Final

from controlplane.core.backoff import Backoff
from controlplane.operations.options import now_text

__all__ = ["Log", "kept", "tell_bug", "tell_bugs"]

_CAPACITY: Final = 1024
"""Lines that wait for a reader; what comes beyond is lost and counted."""
_SLOW: Final = "whoever reads it is too slow"


class Log:
    """Writes what it is called with, in order, some time soon."""

    def __init__(
        self, fd: int = 2, *, capacity: int = _CAPACITY, write: Callable[[int, bytes], int] = os.write
    ) -> None:
        self._fd = fd
        self._capacity = capacity
        self._os_write = write
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._refused = 0
        self._failed = 0  # by the thread; `+=` of two threads on one number would lose some
        self._said = 0
        self._cause = _SLOW
        self._is_torn = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def __call__(self, message: str, **more: str) -> None:
        """Log one thing and what belongs to it, for the journal and for whoever reads it by machine."""
        if self._queue.qsize() >= self._capacity:
            self._refused += 1
        else:
            self._queue.put(_line(message, **more))

    @property
    def trouble(self) -> str | None:
        """Say that lines are being lost, how many and why; None: the last one was written, and all are told of."""
        lost = self._refused + self._failed - self._said
        return f"{lost} lines of the daemon's log are lost: {self._cause}" if lost else None

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what waits, but wait no longer than `timeout_s` for a reader that does not read."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (line := self._queue.get()) is not None:
            self._write(line)

    def _write(self, line: bytes) -> None:
        """Write a line, and before it how many were lost; of which a half one may be the end of what is there."""
        lost, trouble = self._refused + self._failed, self.trouble
        data = (b"\n" if self._is_torn else b"") + (_line(trouble) if trouble else b"") + line
        done = 0
        while done < len(data):
            try:
                done += self._os_write(self._fd, data[done:])
            except BlockingIOError:
                os.set_blocking(self._fd, True)  # it is often shared with a terminal
            except OSError as error:
                self._cause = error.strerror or str(error)
                self._failed += 1
                self._is_torn = self._is_torn or done > 0
                return
        self._said, self._cause, self._is_torn = lost, _SLOW, False


def _line(message: str, **more: str) -> bytes:
    line = {"time": now_text(), "program": "lb-control", "event": message, **more}
    return json.dumps(line).encode() + b"\n"


def tell_bug(log: Log, message: str, error: BaseException | None) -> None:
    """Tell of one."""
    log(message, traceback="" if error is None else "".join(traceback.format_exception(error)))


def tell_bugs(log: Log) -> None:
    """Have the running loop tell of what nobody handles."""

    def handle(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        tell_bug(log, f"a bug of ours: {context.get('message', '')}", context.get("exception"))

    asyncio.get_running_loop().set_exception_handler(handle)


async def kept(
    name: str, work: Callable[[], Coroutine[Any, Any, None]], log: Log, pauses: Backoff | None = None
) -> None:
    """Do `work` until it returns; when it raises, tell, and begin again."""
    loop = asyncio.get_running_loop()
    pauses = pauses or Backoff(base_s=1.0, cap_s=60.0, least=1.0)
    while True:
        began = loop.time()
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - a bug of ours in what only shows must not end what decides
            if loop.time() - began > pauses.cap_s:
                pauses.succeed()
            pause_s = pauses.fail(lambda: 1.0)
            tell_bug(log, f"a bug of ours: {name} failed, and begins again in {pause_s:g} s", error)
        else:
            return
        await asyncio.sleep(pause_s)
