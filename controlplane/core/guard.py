"""The guard: a catalogue that suddenly knows far fewer instances is not believed at once.

Theory of operation
-------------------
Every dangerous failure of a registry looks like a valid answer. Servers that were wiped, a token that became too
narrow and an agent that left all answered `200 []` with a known leader. So:

1. What is published never falls below `high water x (1 - max_shrink)`, nor below `min_backends`, at once, where the high water is the largest
   number published within the last `window_s`. Without it, an agent's instances that vanish one by one pass one
   by one.
2. It never becomes empty, unless `allow_empty`.
3. What would break these rules is held: instances that are missing stay, those that are there are published with
   their news, and new ones are added. The caller reads again, and tells whether a leader confirmed what it saw.
4. A hold ends by itself when everything that it keeps is back, or when the same ones have been missing for
   `hold_s`, confirmed. While one that is missing still answers its checks, or if the catalogue was seen empty in
   this hold, it takes `absent_s` instead: after a loss of their servers, agents register again on a timer of a
   minute or more, one after the other.
5. `release` ends it at once: the operator's word.

Nothing here knows what an instance is: values are opaque.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["Guard", "GuardPolicy", "Held"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GuardPolicy:
    """How much may vanish at once, and for how long the rest is kept."""

    max_shrink: float = 0.5
    """The share of the high water that may vanish unheld, 0..1."""
    allow_empty: bool = False
    min_backends: int = 0
    """A table that takes something away and leaves fewer is held."""
    window_s: float = 60.0
    hold_s: float = 15.0
    absent_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Held:
    """What is being kept against the catalogue's word."""

    why: str
    """`empty`, `shrink` or `denied`."""
    missing: tuple[str, ...]
    """Ids that stay published though the catalogue does not offer them, sorted."""
    seen: int
    """How many the catalogue offers."""
    since: float
    """When the hold began, in monotonic seconds."""
    until: float | None
    """When it ends by itself if nothing changes; None: never."""


class Guard(Generic[T]):
    """The guard of one set of instances."""

    __slots__ = ("_changed_at", "_held", "_marks", "_published", "_saw_empty", "policy")

    def __init__(self, policy: GuardPolicy) -> None:
        self.policy = policy
        self._published: dict[str, T] | None = None
        self._marks: deque[tuple[float, int]] = deque()  # (when it was left, how many), falling
        self._held: Held | None = None
        self._changed_at = 0.0
        self._saw_empty = False

    @property
    def published(self) -> Mapping[str, T] | None:
        """What holds now; None before the first table."""
        return self._published

    @property
    def held(self) -> Held | None:
        """What is being kept; None if the catalogue is believed."""
        return self._held

    def suspects(self, candidate: Mapping[str, T], now: float, *, denied: bool = False) -> str | None:
        """Tell whether a set would be held, and why, without taking it.

        Args:
            candidate: What the catalogue offers, by id.
            now: Monotonic seconds.
            denied: The catalogue said that it left out what the token may not read.

        Returns:
            `empty`, `shrink`, `denied`, or None if it may be published.
        """
        if self._published is None:
            return None if candidate or self.policy.allow_empty else "empty"
        missing = self._published.keys() - candidate.keys()
        if not missing:
            return None
        if denied:
            return "denied"
        if not candidate:
            return "empty"
        return "shrink" if self._held is not None or len(candidate) < self._floor(now) else None

    def add(self, candidate: Mapping[str, T], now: float) -> None:
        """Publish what a set adds and renews, keeping everything else: always safe."""
        self._publish({**(self._published or {}), **candidate}, now)

    def offer(
        self,
        candidate: Mapping[str, T],
        now: float,
        *,
        confirmed: bool,
        denied: bool = False,
        answering: Collection[str] = (),
    ) -> None:
        """Publish a set, or as much of it as may be believed.

        Args:
            candidate: What the catalogue offers, by id.
            now: Monotonic seconds.
            confirmed: A leader gave this answer.
            denied: The catalogue said that it left out what the token may not read.
            answering: Ids that pass the balancer's own checks.
        """
        why = self.suspects(candidate, now, denied=denied)
        if why is None:
            if candidate or self._published is not None or confirmed:
                self._settle(candidate, now)
            return
        if self._published is None:
            return
        self._hold(candidate, why, now, answering)
        held = self._held
        if confirmed and held is not None and held.until is not None and now >= held.until:
            self._settle(candidate, now)
        else:
            self.add(candidate, now)

    def restore(self, published: Mapping[str, T], now: float) -> None:
        """Begin with what was published in an earlier life."""
        self._settle(published, now)

    def release(self, candidate: Mapping[str, T], now: float) -> None:
        """Believe the catalogue: an operator said so."""
        self._settle(candidate, now)
        self._marks.clear()

    def _hold(self, candidate: Mapping[str, T], why: str, now: float, answering: Collection[str]) -> None:
        """Begin or continue a hold, and work out when it ends."""
        missing = tuple(sorted((self._published or {}).keys() - candidate.keys()))
        since = now if self._held is None else self._held.since
        if self._held is None:
            self._saw_empty = False
        self._saw_empty = self._saw_empty or not candidate
        if self._held is None or self._held.missing != missing:
            self._changed_at = now
        until: float | None = None
        if why == "shrink" or (why == "empty" and self.policy.allow_empty):
            patient = why == "shrink" and (self._saw_empty or not set(answering).isdisjoint(missing))
            until = self._changed_at + (self.policy.absent_s if patient else self.policy.hold_s)
        self._held = Held(why, missing, len(candidate), since, until)

    def _settle(self, candidate: Mapping[str, T], now: float) -> None:
        self._held = None
        self._publish(dict(candidate), now)

    def _publish(self, table: dict[str, T], now: float) -> None:
        before = self._published
        self._published = table
        if before is not None and len(before) > len(table):
            # an earlier mark that is not higher ends earlier, so it never matters again
            while self._marks and self._marks[-1][1] <= len(before):
                self._marks.pop()
            self._marks.append((now, len(before)))

    def _floor(self, now: float) -> float:
        """Return the number below which a table is not believed."""
        while self._marks and self._marks[0][0] < now - self.policy.window_s:
            self._marks.popleft()
        current = len(self._published or ())
        high_water = max(current, self._marks[0][1]) if self._marks else current
        return max(high_water * (1.0 - self.policy.max_shrink), self.policy.min_backends)
