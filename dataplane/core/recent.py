"""What has been counted lately: differences of counters that exist, so that nothing more is done for a connection.

Theory of operation: somebody looks every STEP_S seconds, and the looks of the last WINDOW_S are kept, with one more that
is older or just as old. What has happened since that one is what has happened lately. So the window is WINDOW_S long, or
up to STEP_S longer; it is shorter as long as the counters themselves are younger.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

STEP_S: Final = 5.0
WINDOW_S: Final = 60.0


class Recent:
    """The looks at a few counters that never fall; the first is when they began to count."""

    __slots__ = ("_looks",)

    def __init__(self, now: float, counts: Sequence[int]) -> None:
        self._looks = deque([(now, tuple(counts))])

    def look(self, now: float, counts: Sequence[int]) -> None:
        """Remember what they are now, and forget what is too old to be of use."""
        self._looks.append((now, tuple(counts)))
        self._forget(now)

    def since(self, now: float, counts: Sequence[int]) -> tuple[float, tuple[int, ...]]:
        """Return the length of the window in seconds, and what each has counted in it; `counts` is what they are now."""
        self._forget(now)
        at, before = self._looks[0]
        return now - at, tuple(have - had for have, had in zip(counts, before, strict=True))

    def _forget(self, now: float) -> None:
        looks = self._looks
        while len(looks) > 1 and now - looks[1][0] >= WINDOW_S:
            looks.popleft()
