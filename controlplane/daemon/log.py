"""The daemon's log: lines of JSON to standard error, by a thread, so that neither a full disk nor a slow reader stops it.

A bug of ours is told in it, with its traceback. What only shows, follows or remembers begins again after a pause, which doubles
while it keeps failing. What decides ends the daemon: half of it is worse than none, data planes go on without, and the next
start begins with what is on disk. What goes out of order has a line, and one more when it is in order again; nothing in between.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import threading
import traceback
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Final, TypeAlias

from controlplane.core.backoff import Backoff
from controlplane.dataplanes.pusher import Pusher
from controlplane.errors import RefusedError
from controlplane.operations.options import now_text

Fault: TypeAlias = tuple[str, str]
"""Its kind, and what there is to say; another text of the same kind is no news."""

_CAPACITY: Final = 1024
"""Lines that wait for a reader; what comes beyond is lost and counted."""
_SLOW: Final = "whoever reads it is too slow"
_FAULTS: Final = frozenset({"error", "denied", "held"})


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


class Noticing:
    """Compares what is wrong now with what was wrong before; with `comings` it tells who comes and goes as well."""

    def __init__(self, log: Callable[[str], None], *, comings: bool = False) -> None:
        self._log = log
        self._comings = comings
        self._known: dict[str, str | None] = {}

    def take(self, now: Mapping[str, Fault | None]) -> None:
        """Tell what has changed.

        Args:
            now: What is wrong, by name; None: it is in order. A name that is missing has gone.
        """
        for name, fault in now.items():
            first, before = name not in self._known, self._known.get(name)
            self._known[name] = None if fault is None else fault[0]
            if fault is not None and fault[0] != before:
                self._log(f"{name}: {fault[1]}")
            elif fault is None and before is not None:
                self._log(f"{name}: in order again")
            elif first and self._comings:
                self._log(f"{name}: found")
        for name in self._known.keys() - now.keys():
            del self._known[name]
            if self._comings:
                self._log(f"{name}: gone")


def plane_faults(pushers: Iterable[Pusher]) -> dict[str, Fault | None]:
    """Return what is wrong with each data plane that was looked at."""
    return {
        f"data plane {each.endpoint.name}": None
        if each.error is None
        else ("refused" if isinstance(each.error, RefusedError) else "unreachable", str(each.error))
        for each in pushers
        if each.looked.is_set()
    }


def source_faults(sources: Iterable[Mapping[str, Any]]) -> dict[str, Fault | None]:
    """Return what is wrong with each source, from their rows in the status.

    One that is stale without an error has not answered yet, or an operator wants it so: that is nothing to log.
    """
    return {each["name"]: _fault(each) for each in sources}


def _fault(source: Mapping[str, Any]) -> Fault | None:
    state, error = source["state"], source.get("last_error")
    if state not in _FAULTS and not (state == "stale" and error):
        return None
    held = source.get("held")
    return state, error or (f"{held['count']} that it no longer lists are kept" if held else state)
