"""Many changes in a short time become one: wait for quiet, but never for long.

A restarted agent wakes its watchers four times in 10 ms. Published one by one, each step would move clients;
taken together it is one change, or none.
"""

from __future__ import annotations

__all__ = ["Coalescer"]


class Coalescer:
    """Tells when a burst of changes is over."""

    __slots__ = ("_cap_s", "_first", "_last", "_quiet_s")

    def __init__(self, *, quiet_s: float = 0.1, cap_s: float = 1.0) -> None:
        """Start with nothing pending: a burst is over after `quiet_s` without a change, or `cap_s` after its first."""
        self._quiet_s = quiet_s
        self._cap_s = cap_s
        self._first: float | None = None
        self._last = 0.0

    def change(self, now: float) -> None:
        """Note one more change."""
        if self._first is None:
            self._first = now
        self._last = now

    def clear(self) -> None:
        """Forget the burst: it was published, or took itself back."""
        self._first = None

    def due(self) -> float | None:
        """Return when the burst is over, in monotonic seconds; None if there is none."""
        if self._first is None:
            return None
        return min(self._last + self._quiet_s, self._first + self._cap_s)
