"""A clock that only moves when it is told to."""

from __future__ import annotations


class FakeClock:
    """Stands where code takes `Callable[[], float]`, and for the `now` of a core.

    Args:
        now: The first reading, in seconds. Not 0, so that "never" and "at the start" differ.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the present reading, in seconds."""
        return self.now

    def advance(self, seconds: float) -> float:
        """Move on by `seconds` (never backwards) and return the new reading."""
        if seconds < 0:
            msg = f"a monotonic clock cannot go back by {-seconds} s"
            raise ValueError(msg)
        self.now += seconds
        return self.now
