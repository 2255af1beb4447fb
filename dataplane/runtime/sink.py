"""Lines to a file descriptor through a thread of their own: a reader that blocks never blocks a relay."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from pathlib import Path
from typing import Final

__all__ = ["LineSink", "open_sink"]

CAPACITY: Final = 65_536
"""Lines kept for a reader that is slow; what comes beyond is dropped and counted."""
BATCH: Final = 512


class LineSink:
    """Writes what `write` is given, in order, some time soon."""

    def __init__(self, fd: int, *, capacity: int = CAPACITY) -> None:
        self._fd = fd
        self._capacity = capacity
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.dropped = 0
        """Lines that nobody will see."""
        self._thread = threading.Thread(target=self._run, name=f"lines-{fd}", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Queue one line, which ends with a newline; drop it if the queue is full."""
        if self._queue.qsize() >= self._capacity:
            self.dropped += 1
            return
        self._queue.put(line)

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what is queued, but wait no longer than `timeout_s` for a reader that does not read."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        ending = False
        while not ending:
            lines = [self._queue.get()]
            with contextlib.suppress(queue.Empty):
                while len(lines) < BATCH:
                    lines.append(self._queue.get_nowait())
            if None in lines:
                ending = True
            data = memoryview(b"".join(line for line in lines if line is not None))
            while data:
                try:
                    data = data[os.write(self._fd, data) :]
                except BlockingIOError:
                    # Somebody else made the descriptor non-blocking: it is often shared with a terminal.
                    os.set_blocking(self._fd, True)
                except OSError:
                    self.dropped += sum(line is not None for line in lines)
                    break


def open_sink(target: str) -> LineSink | None:
    """Open what `--access-log` names: `-` for standard output, a file to append to; None for `off`.

    Raises:
        OSError: The file cannot be opened.
    """
    if target == "off":
        return None
    if target == "-":
        return LineSink(1)
    flags = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    # To open a pipe for writing waits for a reader; for both it does not (fifo(7)), and readers may come and go.
    flags |= os.O_RDWR if Path(target).is_fifo() else os.O_WRONLY
    return LineSink(os.open(target, flags, 0o640))
