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
5. Only absence is doubted. What the catalogue still lists elsewhere (under another tag, say) has been moved by
   somebody: it goes at once, is no part of what has shrunk, and no mark of a high water is left by it. The last one,
   and one below `min_backends`, is kept all the same: that is a rule about what remains, not about belief.
6. `release` ends a hold at once: the operator's word.

Nothing here knows what an instance is: values are opaque.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

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

    __slots__ = ("_changed_at", "_marks", "_saw_empty", "held", "policy", "published")

    def __init__(self, policy: GuardPolicy) -> None:
        self.policy = policy
        self.published: Mapping[str, T] | None = None
        """What holds now; None before the first table."""
        self.held: Held | None = None
        """What is being kept; None if the catalogue is believed."""
        self._marks: deque[tuple[float, int]] = deque()  # (when it was left, how many), falling
        self._changed_at = 0.0
        self._saw_empty = False

    def suspects(
        self,
        candidate: Mapping[str, T],
        now: float,
        *,
        denied: bool = False,
        elsewhere: frozenset[str] = frozenset(),
    ) -> str | None:
        """Tell why a set would be held (`empty`, `shrink`, `denied`), without taking it; None: it may be published.

        Args:
            candidate: What the catalogue offers, by id.
            now: Monotonic seconds.
            denied: The catalogue said that it left out what the token may not read.
            elsewhere: Ids that it lists, but not among what is asked for.
        """
        if self.published is None:
            return None if candidate or self.policy.allow_empty else "empty"
        missing = self.published.keys() - candidate.keys()
        absent = missing - elsewhere
        if not missing or not (absent or self._breaks_a_rule(candidate)):
            return None
        if denied and absent:
            return "denied"
        if not candidate:
            return "empty"
        if self._breaks_a_rule(candidate) or self.held is not None:
            return "shrink"
        return "shrink" if len(candidate) < self._floor(now, len(missing) - len(absent)) else None

    def add(self, candidate: Mapping[str, T], now: float) -> None:
        """Publish what a set adds and renews, keeping everything else: always safe."""
        self._publish({**(self.published or {}), **candidate}, now)

    def offer(
        self,
        candidate: Mapping[str, T],
        now: float,
        *,
        confirmed: bool,
        denied: bool = False,
        answering: Collection[str] = (),
        elsewhere: frozenset[str] = frozenset(),
    ) -> None:
        """Publish a set, or as much of it as may be believed.

        The arguments are those of `suspects`, and whether a leader has `confirmed` this answer, and which ids are
        `answering` to the balancer's own checks.
        """
        why = self.suspects(candidate, now, denied=denied, elsewhere=elsewhere)
        if why is None:
            if candidate or self.published is not None or confirmed:
                self._settle(candidate, now, elsewhere)
            return
        if self.published is None:
            return
        missing = self.published.keys() - candidate.keys()
        if not self._breaks_a_rule(candidate):
            missing -= elsewhere
        held = self._hold(candidate, missing, why, now, answering)
        if confirmed and held.until is not None and now >= held.until:
            self._settle(candidate, now, elsewhere)
        else:
            kept = {name: value for name, value in self.published.items() if name in missing}
            self._publish({**kept, **candidate}, now, elsewhere)

    def restore(self, published: Mapping[str, T], now: float) -> None:
        """Begin with what was published in an earlier life."""
        self._settle(published, now)

    def release(self, candidate: Mapping[str, T], now: float) -> None:
        """Believe the catalogue: an operator said so."""
        self._settle(candidate, now)
        self._marks.clear()

    def _breaks_a_rule(self, candidate: Mapping[str, T]) -> bool:
        """Tell whether too little would remain, whatever became of the rest."""
        fewest = max(self.policy.min_backends, 0 if self.policy.allow_empty else 1)
        return len(candidate) < fewest

    def _hold(
        self,
        candidate: Mapping[str, T],
        gone: Collection[str],
        why: str,
        now: float,
        answering: Collection[str],
    ) -> Held:
        """Begin or continue a hold of what is gone, and work out when it ends."""
        missing = tuple(sorted(gone))
        since = now if self.held is None else self.held.since
        if self.held is None:
            self._saw_empty = False
        self._saw_empty = self._saw_empty or not candidate
        if self.held is None or self.held.missing != missing:
            self._changed_at = now
        until: float | None = None
        if why == "shrink" or (why == "empty" and self.policy.allow_empty):
            patient = why == "shrink" and (self._saw_empty or not set(answering).isdisjoint(missing))
            until = self._changed_at + (self.policy.absent_s if patient else self.policy.hold_s)
        self.held = Held(why, missing, len(candidate), since, until)
        return self.held

    def _settle(
        self, candidate: Mapping[str, T], now: float, elsewhere: frozenset[str] = frozenset()
    ) -> None:
        self.held = None
        self._publish(dict(candidate), now, elsewhere)

    def _publish(self, table: dict[str, T], now: float, elsewhere: frozenset[str] = frozenset()) -> None:
        before = self.published
        self.published = table
        if before is None:
            return
        moved = len((before.keys() - table.keys()) & elsewhere)
        if moved:
            self._marks = deque((at, max(0, number - moved)) for at, number in self._marks)
        left = len(before) - moved
        if left > len(table):
            # an earlier mark that is not higher ends earlier, so it never matters again
            while self._marks and self._marks[-1][1] <= left:
                self._marks.pop()
            self._marks.append((now, left))

    def _floor(self, now: float, moved: int) -> float:
        """Return the number below which a table is not believed if so many have moved elsewhere."""
        while self._marks and self._marks[0][0] < now - self.policy.window_s:
            self._marks.popleft()
        current = len(self.published or ())
        high_water = max(current, self._marks[0][1]) if self._marks else current
        return (high_water - moved) * (1.0 - self.policy.max_shrink)
