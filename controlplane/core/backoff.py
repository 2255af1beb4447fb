"""How long to wait before something that failed is tried again: longer each time, and never for good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Backoff", "Random"]

Random = Callable[[], float]
"""Returns a float, 0 <= x < 1."""
_MAX_DOUBLINGS = 32


@dataclass(slots=True)
class Backoff:
    """Grows the pause after each failure in a row, with jitter, for ever.

    Full jitter (uniform between 0 and the bound) spreads a fleet that lost the same server best: Brooker,
    "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    base_s: float = 0.25
    cap_s: float = 30.0
    least: float = 0.0
    """The smallest share of the bound that a pause may be, 0..1; what asks nobody else needs no jitter: 1."""
    failures: int = 0

    def bound(self) -> float:
        """Return the longest pause that the next failure may cause, in seconds."""
        return min(self.cap_s, self.base_s * 2.0 ** min(self.failures, _MAX_DOUBLINGS))

    def fail(self, random: Random) -> float:
        """Count a failure and return the seconds to wait, least * bound <= s <= bound."""
        pause = self.bound() * (self.least + (1.0 - self.least) * random())
        self.failures += 1
        return pause

    def succeed(self) -> None:
        """Begin again from the smallest pause."""
        self.failures = 0
