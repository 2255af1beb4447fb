"""How many idle connections a pool should hold: arrival rate x dial time, with room for chance."""

from __future__ import annotations

from math import ceil, exp, sqrt
from typing import Final

TAU_S: Final = 10.0
"""Time constant of the arrival rate: what happened 30 s ago weighs 5 %."""
FOLD_S: Final = 0.1
"""Arrivals are only counted in between: an exponential for each client would cost more than it tells."""
DEVIATIONS: Final = 3.0
"""Arrivals during one dial are about Poisson; three standard deviations above the mean covers 99.9 %."""
DIAL_SMOOTHING: Final = 0.2
FALLBACK_DIAL_S: Final = 0.001
"""Assumed before the first dial was timed."""
BATCH_S: Final = 0.002
"""Clients of so long a time are dialled for together: each dial by itself may have to wake the backend."""
MAX_BATCH: Final = 16
"""A dial takes some 30 microseconds, and clients wait while a batch of them is made."""
REMEMBERED_S: Final = 300.0
"""How long a greeting is remembered without another: so often a pool with `min_idle` looks whether there is one still."""


class Demand:
    """Exponentially decayed arrival rate and smoothed dial time of one backend.

    The rate estimator is a decayed event counter: each arrival adds 1, and the sum decays with
    exp(-dt / TAU_S), so that sum / TAU_S tends to the rate of a steady stream.
    """

    __slots__ = ("_arrivals", "_dial_s", "_events", "_folded_at")

    def __init__(self) -> None:
        self._arrivals = 0
        self._events = 0.0
        self._folded_at = 0.0
        self._dial_s = 0.0

    def arrived(self, now: float) -> bool:
        """Count one client at monotonic second `now`; return whether `target` may have changed by now."""
        self._arrivals += 1
        if now - self._folded_at < FOLD_S:
            return False
        self._fold(now)
        return True

    def dialled(self, seconds: float) -> None:
        """Take note of how long a dial took."""
        if self._dial_s:
            self._dial_s += DIAL_SMOOTHING * (seconds - self._dial_s)
        else:
            self._dial_s = seconds

    def rate(self, now: float) -> float:
        """Return arrivals a second."""
        self._fold(now)
        return self._events / TAU_S

    def target(self, now: float, *, idle_timeout_s: float) -> int:
        """Return how many connections should be ready: those likely to be asked for while a batch is dialled.

        At least 1 as long as a connection is likely to be used before `idle_timeout_s` ends it.
        """
        rate = self.rate(now)
        if not rate or (idle_timeout_s and rate * idle_timeout_s < 1.0):
            return 0
        mean = rate * (self._dial_s or FALLBACK_DIAL_S)
        return ceil(mean + DEVIATIONS * sqrt(mean)) + self.batch - 1

    @property
    def batch(self) -> int:
        """How many should be dialled together, by the rate when it was last computed; at least 1."""
        return max(1, min(MAX_BATCH, ceil(self._events / TAU_S * BATCH_S)))

    def _fold(self, now: float) -> None:
        self._events = self._events * exp((self._folded_at - now) / TAU_S) + self._arrivals
        self._arrivals = 0
        self._folded_at = now


class Greeting:
    """Whether a backend speaks first, as its pooled connections have shown lately."""

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until = 0.0
        """Until when it is believed (monotonic seconds)."""

    def heard(self, now: float) -> None:
        """Take note that it has spoken first at monotonic second `now`."""
        self.until = now + REMEMBERED_S

    def is_known(self, now: float) -> bool:
        """Tell whether it is believed to speak first."""
        return now < self.until

    def forget(self) -> None:
        """Believe nothing: it may be another server by now."""
        self.until = 0.0
