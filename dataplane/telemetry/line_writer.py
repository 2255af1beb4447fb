"""Lines to a file descriptor through a thread of their own: a reader that blocks never blocks a relay.

Theory of operation: a line is written whole, or is lost and counted; one that is begun when the disk becomes full is
taken back, so that a file always ends with a whole one. Where that cannot be, as in a pipe, what comes next begins on a
line of its own.
"""

from __future__ import annotations

import os
import queue
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dataplane.net.reactor import Reactor
from schemas.system.ownership import open_or_make

CAPACITY: Final = 65_536
"""Lines kept for a reader that is slow; what comes beyond is dropped and counted."""
BATCH: Final = 512
LINGER_S: Final = 0.05
"""How long the access log's thread lets lines gather. Woken for each, it cost a connection 30 us more: each time the
relay's next system call waits for the interpreter's lock."""
LOOK_S: Final = 1.0
QUIET_S: Final = 5.0
"""How long nothing must be lost, and something be written, until it is over: a slow reader loses and takes in turns."""
SLOW: Final = "whoever reads it is too slow"


class LineSink:
    """Writes what `write` is given to `fd`, its own from now on, in order, some time soon.

    Args:
        fd: Where to.
        capacity: Lines.
        linger_s: How long a line may wait for others, so that they are written together.
        path: What `reopen` opens; None: nothing.
        write: As `os.write` does.
    """

    def __init__(
        self,
        fd: int,
        *,
        capacity: int = CAPACITY,
        linger_s: float = 0.0,
        path: str | None = None,
        write: Callable[[int, memoryview], int] = os.write,
    ) -> None:
        self.path = path
        self.written = 0
        """Lines so far."""
        self.trouble = ""
        """Why the last line was lost that could not be written; empty: none was, or it was the reader's slowness."""
        self._os_write = write
        self._is_torn = False
        """What was written last is the beginning of a line that is lost."""
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
        """Go on in a new file of the same name; False: there is none. With an OSError the old one is written on."""
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
                self._is_torn = False

    def _write(self, lines: list[bytes]) -> None:
        begin = b"\n" if self._is_torn and lines else b""
        data, done = memoryview(b"".join((begin, *lines))), 0
        while done < len(data):
            try:
                done += self._os_write(self._fd, data[done:])
            except BlockingIOError:
                # Somebody else made the descriptor non-blocking: it is often shared with a terminal.
                os.set_blocking(self._fd, True)
            except OSError as error:
                self._lose(lines, done, done - len(begin), error)
                return
        if lines:
            self._is_torn = False
            self.written += len(lines)

    def _lose(self, lines: list[bytes], done: int, of_lines: int, error: OSError) -> None:
        """Count what could not be written, and leave no half line behind."""
        whole = 0
        for line in lines:
            if of_lines < len(line):
                break
            of_lines -= len(line)
            whole += 1
        self.trouble = error.strerror or str(error)
        self.written += whole
        self._lost += len(lines) - whole
        if done:
            self._is_torn = of_lines > 0 and not self._take_back(of_lines)

    def _take_back(self, size: int) -> bool:
        """Remove the last `size` bytes of a file; return whether that could be."""
        try:
            known = os.fstat(self._fd)
            if not stat.S_ISREG(known.st_mode):
                return False
            end = os.lseek(self._fd, 0, os.SEEK_CUR)
            if end != known.st_size:  # another process has written behind it
                return False
            os.ftruncate(self._fd, end - size)
            os.lseek(self._fd, end - size, os.SEEK_SET)
        except OSError:
            return False
        return True


class LossWatch:
    """Tells when lines of a log begin to be lost, why, and when they are written again; operators know it by a name."""

    tick = 0

    def __init__(self, name: str, sink: LineSink, reactor: Reactor, tell: Callable[..., None]) -> None:
        self._name, self._sink, self._reactor, self._tell = name, sink, reactor, tell
        self._lost = self._before = sink.dropped
        self._written = 0
        self._last_at = 0.0
        self._losing = False

    def start(self) -> None:
        """Look every LOOK_S seconds."""
        self.on_timer(self._reactor.clock())

    def on_timer(self, now: float) -> None:
        """Look, and come again."""
        self._reactor.wheel.at(self, now + LOOK_S)
        sink, lost = self._sink, self._sink.dropped
        more, self._lost = lost - self._lost, lost
        if more:
            self._last_at, self._written = now, sink.written
            if not self._losing:
                self._losing, self._before = True, lost - more
                where = {} if sink.path is None else {"path": sink.path}
                self._tell("log_lines_lost", log=self._name, **where, cause=sink.trouble or SLOW, lines=more)
        elif self._losing and now - self._last_at >= QUIET_S and sink.written > self._written:
            self._losing, sink.trouble = False, ""
            self._tell("log_written_again", log=self._name, lines=lost - self._before)


def open_sink(target: str) -> LineSink | None:
    """Open what `--access-log` names, or OSError: `-`, standard output; a file to append to; None for `off`."""
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
