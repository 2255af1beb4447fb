"""Lines to a file descriptor through a thread of their own: a reader that blocks never blocks a relay."""

from __future__ import annotations

import os
import queue
import threading
from pathlib import Path
from typing import Final

from schemas.ownership import open_or_make

__all__ = ["LineSink", "open_sink"]

CAPACITY: Final = 65_536
"""Lines kept for a reader that is slow; what comes beyond is dropped and counted."""
BATCH: Final = 512
LINGER_S: Final = 0.05
"""How long the access log's thread lets lines gather. Woken for each, it cost a connection 30 us more: each time the
relay's next system call waits for the interpreter's lock."""


class LineSink:
    """Writes what `write` is given, in order, some time soon.

    Args:
        fd: Where to; the sink's own from now on.
        capacity: Lines.
        linger_s: How long a line may wait for others, so that they are written together.
        path: What `reopen` opens; None: nothing.
    """

    def __init__(
        self, fd: int, *, capacity: int = CAPACITY, linger_s: float = 0.0, path: str | None = None
    ) -> None:
        self.path = path
        self._fd = fd
        self._capacity = capacity
        self._linger_s = linger_s
        self._queue: queue.SimpleQueue[bytes | int | None] = queue.SimpleQueue()
        self._refused = 0
        self._lost = 0  # by the thread; `+=` of two threads on one number would lose some
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lines-{fd}", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines that nobody will see."""
        return self._refused + self._lost

    def write(self, line: bytes) -> None:
        """Queue one line, which ends with a newline; drop it if the queue is full."""
        if self._queue.qsize() >= self._capacity:
            self._refused += 1
            return
        self._queue.put(line)

    def reopen(self) -> bool:
        """Go on in a new file of the same name, after what is queued; return False if there is no file.

        Raises:
            OSError: It cannot be opened; the old one is written on.
        """
        if self.path is None:
            return False
        self._queue.put(_open(self.path))
        return True

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what is queued, but wait no longer than `timeout_s` for a reader that does not read."""
        self._closing.set()
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if self._linger_s and self._queue.qsize() < BATCH:
                self._closing.wait(self._linger_s)
            lines = []
            while isinstance(item, bytes):
                lines.append(item)
                if len(lines) == BATCH or self._queue.empty():  # nobody else takes from it
                    break
                item = self._queue.get()
            self._write(lines)
            if item is None:
                return
            if isinstance(item, int):
                os.close(self._fd)
                self._fd = item

    def _write(self, lines: list[bytes]) -> None:
        data = memoryview(b"".join(lines))
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                # Somebody else made the descriptor non-blocking: it is often shared with a terminal.
                os.set_blocking(self._fd, True)
            except OSError:
                self._lost += len(lines)
                break


def open_sink(target: str) -> LineSink | None:
    """Open what `--access-log` names: `-` for standard output, a file to append to; None for `off`.

    Raises:
        OSError: The file cannot be opened.
    """
    if target == "off":
        return None
    if target == "-":
        return LineSink(1, linger_s=LINGER_S)
    return LineSink(_open(target), linger_s=LINGER_S, path=target)


def _open(path: str) -> int:
    flags = os.O_APPEND
    # To open a pipe for writing waits for a reader; for both it does not (fifo(7)), and readers may come and go.
    flags |= os.O_RDWR if Path(path).is_fifo() else os.O_WRONLY
    return open_or_make(Path(path), flags, 0o640)
