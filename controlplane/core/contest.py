"""Somebody else pushes to the same data planes: who, since when, and when our word is pushed again.

Theory of operation: the word of a daemon holds, so what somebody else pushes over it is overwritten at once. Where this
happens again, there are two who both believe that, and every push cuts the other's clients: each pause before ours is
pushed again is twice as long as the one before. Once nobody has pushed over it for FORGET_S, all is forgotten. A change
that an operator or the file wants is pushed at once all the same: this is about saying the same again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["FORGET_S", "Contest"]

FIRST_S: Final = 1.0
MOST_S: Final = 300.0
FORGET_S: Final = 900.0
"""More than twice the longest pause: the other one may keep pauses, too."""
QUIET_S: Final = 60.0
"""After that, and twice our pause, the other one has ended or has the same file by now, and nobody need be told any more."""
_TWICE: Final = 2
"""Once may have been a command, or a data plane that began with something of its own."""


class Contest:
    """Decides, from the times at which our word was found overwritten, when it is pushed again."""

    def __init__(self) -> None:
        self._times = 0
        self._since = 0.0
        self._last = 0.0
        self._by: Mapping[str, Any] | None = None

    def may_push(self, by: Mapping[str, Any] | None, now: float) -> bool:
        """Tell whether to push ours again now; if so, that counts as done.

        Args:
            by: Who pushed what runs instead; None: nobody says.
            now: Monotonic seconds.
        """
        if self._times and now - self._last > FORGET_S:
            self._times = 0
        self._by = by
        if now < self._last + self._pause() and self._times:
            return False
        if not self._times:
            self._since = now
        self._times += 1
        self._last = now
        return True

    def _pause(self) -> float:
        return 0.0 if self._times < _TWICE else min(MOST_S, FIRST_S * 2.0 ** (self._times - _TWICE))

    def status(self, now: float) -> dict[str, Any] | None:
        """Describe it; None: nobody contests anything.

        Returns:
            `by`; how many `times` ours was pushed again; `for_s`, since the first; `next_in_s`, when it may be again.
        """
        if self._times < _TWICE or now - self._last > QUIET_S + _TWICE * self._pause():
            return None
        return {
            "by": None if self._by is None else dict(self._by),
            "times": self._times,
            "for_s": round(now - self._since, 1),
            "next_in_s": round(max(0.0, self._last + self._pause() - now), 1),
        }
