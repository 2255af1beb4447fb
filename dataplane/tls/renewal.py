"""A file, or several that belong together, which others write anew while we run: taken when they are good, kept when not.

Theory of operation:

1. It is looked at every second by what its paths lead to (inode, times, size), so a rename, a symbolic link that leads
   elsewhere (certbot, secrets of Kubernetes) and a write in place are all seen.
2. What is new is read and checked as a whole. What is good replaces what was in use. What is not changes nothing, and is
   tried again after pauses that grow from a second to a minute, and at once when the files change again: a certificate may
   begin to hold, and what is in the way may go.
3. A key that is written before its certificate does not belong to it for a moment. So trouble is told only when it has
   lasted for SETTLE_S, and what has settled by then was none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

from dataplane.tls.files import TlsFileError
from schemas.http.reloaded import Signature, signature

T = TypeVar("T")
SETTLE_S: Final = 3.0
"""How long files that do not fit are waited for before anybody is told."""
FIRST_PAUSE_S: Final = 1.0
MOST_PAUSE_S: Final = 60.0
Look = Callable[[str], Signature]
"""Tells what a path leads to; empty: nothing."""


def look_at(path: str) -> Signature:
    """Return the signature of what a path leads to."""
    return signature(Path(path))


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the newest files are not in use."""

    cause: str
    since: float
    """Monotonic seconds."""


class Renewed(Generic[T]):
    """What is made of files, as it was when they were good last.

    Args:
        paths: The files.
        read: Reads and checks them, at a time in Unix seconds; raises `TlsFileError`.
        look: Tells what a path leads to.
    """

    def __init__(
        self,
        paths: Sequence[str],
        read: Callable[[float], T],
        value: T,
        seen: Sequence[Signature],
        look: Look,
    ) -> None:
        self.value = value
        self.trouble: Trouble | None = None
        """Told: it has lasted."""
        self._paths = paths
        self._read = read
        self._look = look
        self._seen = list(seen)
        self._failed: Trouble | None = None
        """Since when they do not fit, and why."""
        self._pause_s = FIRST_PAUSE_S
        self._again_at = 0.0

    @classmethod
    def of(
        cls, paths: Sequence[str], read: Callable[[float], T], wall: float, look: Look = look_at
    ) -> Renewed[T]:
        """Read it for the first time; `TlsFileError` if that cannot be."""
        # Before they are read: what changes meanwhile is read again at the next look.
        seen = [look(path) for path in paths]
        return cls(paths, read, read(wall), seen, look)

    def renew(self, now: float, wall: float) -> bool:
        """Look at the files; return whether `value` is new, or whether what is told of `trouble` is.

        Args:
            now: Monotonic seconds.
            wall: Unix seconds.
        """
        seen = [self._look(path) for path in self._paths]
        if seen != self._seen:
            self._pause_s = FIRST_PAUSE_S
        elif self._failed is None:
            return False
        elif now < self._again_at:
            return self._tell(now)
        self._seen = seen
        try:
            value = self._read(wall)
        except TlsFileError as error:
            since = now if self._failed is None else self._failed.since
            self._failed = Trouble(str(error), since)
            self._again_at = now + self._pause_s
            self._pause_s = min(2 * self._pause_s, MOST_PAUSE_S)
            return self._tell(now)
        changed = value != self.value or self.trouble is not None
        self.value, self._failed, self.trouble = value, None, None
        return changed

    def _tell(self, now: float) -> bool:
        failed = self._failed
        if failed is None or now - failed.since < SETTLE_S:
            return False
        told = self.trouble is None or self.trouble.cause != failed.cause
        self.trouble = failed
        return told
