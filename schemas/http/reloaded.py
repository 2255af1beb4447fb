"""What is made of files that others write anew while we run, such as certificates that are renewed every day.

Theory of operation:

1. It is made at the first use. Each further use looks whether a file has changed (inode, times, size), and makes it anew
   if so.
2. Files that cannot be used, such as a certificate whose new key is not written yet, leave the last good one in use, and
   `trouble` says why, until they change again. What is in the way may also go without a change of theirs, such as a full
   table of descriptors: so they are tried again after a pause, which grows from a second to a minute.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

T = TypeVar("T")
Signature: TypeAlias = tuple[int, ...]
"""Device, inode, mtime, ctime (ns) and size; empty: there is no file."""
_PAUSE_S = 1.0
_PAUSE_MAX_S = 60.0


class Renewed(Generic[T]):
    """One thing that is made of files as they are, for any thread.

    `wrong` is what `make` raises if they cannot be used; `told` is called after each change, with what is wrong now,
    or None: it is in use.
    """

    def __init__(
        self,
        files: Iterable[Path],
        make: Callable[[], T],
        *,
        wrong: type[Exception] | tuple[type[Exception], ...],
        told: Callable[[Exception | None], None] = lambda _trouble: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.trouble: Exception | None = None
        """Why the newest files are not in use; None: they are, or nothing was read yet."""
        self._files = tuple(files)
        self._make = make
        self._wrong = wrong
        self._told = told
        self._lock = threading.Lock()
        self._made: tuple[T] | None = None
        self._seen: list[Signature] = []
        self._clock = clock
        self._pause_s = _PAUSE_S
        self._again_at = 0.0

    def now(self) -> T:
        """Return it.

        Blocks: a look takes microseconds for each file. Raises one of `wrong` if the files never could be used.
        """
        with self._lock:
            # Before they are read: what changes meanwhile is read again next time.
            seen = [signature(path) for path in self._files]
            if self._made is None:
                self._made = (self._make(),)
            elif seen != self._seen:
                self._pause_s = _PAUSE_S
                self._renew()
                self._told(self.trouble)
            elif self.trouble is not None and self._clock() >= self._again_at:
                before = str(self.trouble)
                self._renew()
                if self.trouble is None or str(self.trouble) != before:
                    self._told(self.trouble)
            self._seen = seen
            return self._made[0]

    def _renew(self) -> None:
        try:
            self._made = (self._make(),)
        except self._wrong as error:
            self.trouble = error
            self._again_at = self._clock() + self._pause_s
            self._pause_s = min(2 * self._pause_s, _PAUSE_MAX_S)
        else:
            self.trouble = None


def signature(path: Path) -> Signature:
    """Look at what a path leads to."""
    with contextlib.suppress(OSError):
        seen = path.stat()
        return (seen.st_dev, seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size)
    return ()
