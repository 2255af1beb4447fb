"""When to ask again: what failed after a pause that grows, and Consul with the index of a blocking query."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Random = Callable[[], float]
"""Returns a float, 0 <= x < 1."""
_MAX_DOUBLINGS = 32


@dataclass(slots=True)
class Backoff:
    """Grows the pause after each failure in a row, with jitter, for ever: it never gives up.

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


MAX_INDEX = 2**64 - 1


class BadIndex(ValueError):  # noqa: N818 - a verdict on a header
    """A reply without a usable `X-Consul-Index`: whatever answered, it was not Consul."""


class WatchIndex:
    """The index to send with the next blocking query; 0 means: do not block.

    Consul's rules, the same text from 1.8 on: an index that goes backwards starts again from nothing (a restored
    snapshot takes it from 38 to 28); an index below 1 would make every query return at once; a return is no proof
    of a change. Clients that forgot the first rule missed updates until they were restarted (go-kit, Prometheus).
    """

    __slots__ = ("resets", "value")

    def __init__(self) -> None:
        self.value = 0
        """The index to send: 0 for none, else at least 1."""
        self.resets = 0
        """How often it went backwards."""

    def forget(self) -> None:
        """Start again from nothing, as after any error."""
        self.value = 0

    def take(self, header: str | None) -> bool:
        """Take over the index of a reply: `X-Consul-Index` as received; None if absent.

        False if it went backwards: the reply counts, and the next query must not block. BadIndex if there is none, or
        it is no number; the index is forgotten then.
        """
        if header is None or not header.isascii() or not header.isdecimal() or len(header) > 20:  # noqa: PLR2004 - 2**64
            self.forget()
            raise BadIndex("no X-Consul-Index" if header is None else f"X-Consul-Index is {header[:40]!a}")
        received = max(1, min(int(header), MAX_INDEX))
        if received < self.value:
            self.forget()
            self.resets += 1
            return False
        self.value = received
        return True


class TokenBucket:
    """Bounds how often a watch asks, without delaying the first question after a quiet time."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, *, rate: float, burst: int) -> None:
        """Start full: `burst` tokens at most are saved up, and `rate` come each second."""
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at: float | None = None

    def take(self, now: float) -> float:
        """Take one token and return the seconds to wait before using it, 0 if there was one."""
        if self._at is not None:
            self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now
        self._tokens -= 1.0
        return max(0.0, -self._tokens / self._rate)


def jittered(seconds: float, random: Random) -> float:
    """Return a time shortened by a random part of at most a tenth, so that many watches do not beat as one."""
    return seconds * (1.0 - 0.1 * random())
