"""From what a catalogue shows to what is published: damping, coalescing and the guard, in that order.

Theory of operation
-------------------
1. `observe` takes a reply; `Wanted` tells which of its instances are wanted.
2. What adds is published by the next `advance`: a new instance, or one that goes into maintenance. Both are safe
   and both are urgent.
3. What takes away or renews waits until the burst is over (`Coalescer`), then passes the guard. Where a query asks
   for a part of a service only (by tags, by a filter), what is missing may be listed elsewhere: `lacks` wants the
   whole service asked for, and what that shows has been moved and is not doubted. Nor is an id whose address is
   listed under another one: the server is there.
4. A reply that takes away and comes from a server that knows no leader is doubted: it waits for one that a leader
   confirmed. `confirm_every` asks for it, and for those that a hold of the guard needs.

`due` tells when `advance` has something to do without a new reply.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.core.guard import Guard, GuardPolicy
from controlplane.core.instances import Classified, Condition, Instance
from controlplane.core.wanted import Answers, Wanted

FAST_CONFIRM_S = 1.0
SLOW_CONFIRM_S = 10.0  # a hold without an end costs the servers a read now and then for as long as it lasts
FAST_FOR_S = 60.0
QUIET_S = 0.1  # without a change: the burst is over
BURST_S = 1.0  # after its first change it is over in any case


@dataclass(frozen=True, slots=True)
class Trust:
    """How far a reply is to be believed when it takes something away."""

    confirmed: bool = False
    """A leader gave it."""
    doubted: bool = False
    """It came from a server that knows no leader, or does not say."""
    denied: bool = False
    """The catalogue said that it left out what the token may not read."""


class Coalescer:
    """Tells when a burst of changes is over: wait for quiet, but never for long.

    A restarted agent wakes its watchers four times in 10 ms. Published one by one, each step would move clients;
    taken together it is one change, or none.
    """

    __slots__ = ("_first", "_last")

    def __init__(self) -> None:
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
        return min(self._last + QUIET_S, self._first + BURST_S)


class Track:
    """One query's instances in one datacenter, on their way to being published.

    Attributes:
        guard: Has what is published, and what it keeps against the catalogue's word.
        wanted: Chooses among the instances that were seen.
        seen: The last reply, as read; an empty one before the first.
        heard: Whether there was a reply in this life.
        settled: Whether the guard has had the last word on the last reply; until then a moment may change what holds.
    """

    def __init__(self, policy: GuardPolicy, *, answers: Answers) -> None:
        self.guard: Guard[Instance] = Guard(policy)
        self.wanted = Wanted(answers)
        self.seen = Classified()
        self.heard = False
        self.settled = True
        self._answers = answers
        self._coalescer = Coalescer()
        self._trust = Trust()
        self._elsewhere: frozenset[str] = frozenset()
        self._candidate: dict[str, Instance] | None = None

    def recall(self, other: Track) -> None:
        """Begin with what another track of the same query remembers, but its last reply, under the own policy."""
        policy, self.guard = self.guard.policy, copy.deepcopy(other.guard)
        self.guard.policy = policy
        self.wanted.recall(other.wanted)

    def shown(self, now: float) -> Mapping[str, Instance] | None:
        """Return what `release` would publish: what the catalogue shows, if anything was published before."""
        published = self.guard.published
        if self._candidate is None or published is None:
            return published
        return self.wanted.table(now, self.guard.policy.absent_s)

    def observe(
        self, seen: Classified, now: float, trust: Trust, elsewhere: frozenset[str] = frozenset()
    ) -> None:
        """Take the reply to a query; `advance` acts on it. `elsewhere` has the ids that `Guard.offer` is told of."""
        if trust.confirmed or self.guard.held is not None or elsewhere != self._elsewhere:
            self.settled = False
        self.heard = True
        self.seen, self._trust, self._elsewhere = seen, trust, elsewhere
        self.wanted.note(seen.instances, now)

    def advance(self, now: float) -> bool:
        """Publish what may be published by now; True if what is published has changed."""
        before = self.guard.published
        if not self.heard:
            return False
        candidate = self.wanted.table(now, self.guard.policy.absent_s)
        if candidate != self._candidate:
            self._candidate = candidate
            self.settled = False
            self._coalescer.change(now)
        if self.settled:
            return False
        self._add_urgent(candidate, now)
        burst_ends = self._coalescer.due()
        # the guard has to hear of every emptiness, however short: it never publishes one at once
        at_once = not before or not candidate or burst_ends is None
        if (at_once or now >= (burst_ends or 0.0)) and not self._is_doubtful():
            self._offer(candidate, now)
        return before != self.guard.published

    def due(self, now: float) -> float | None:
        """Return when `advance`, called at `now`, has something to do without a new reply; None: not before it."""
        later = self.wanted.dues(self.guard.published or (), self.guard.policy.absent_s)
        times = [at for at in later if at > now]
        burst_ends = self._coalescer.due()
        if burst_ends is not None and not self.settled and not self._is_doubtful():
            times.append(burst_ends)
        return min(times, default=None)

    def confirm_every(self, now: float) -> float | None:
        """Return how often a reply that a leader confirms is needed, in seconds; None if none is needed."""
        held, candidate = self.guard.held, self._candidate
        if held is not None:
            is_long = held.until is None and now - held.since >= FAST_FOR_S
            return SLOW_CONFIRM_S if is_long else FAST_CONFIRM_S
        if candidate is None or self.guard.published is None:
            return None
        moved = self._moved(candidate)
        why = self.guard.suspects(candidate, now, denied=self._trust.denied, elsewhere=moved)
        return FAST_CONFIRM_S if self._is_doubtful() or why is not None else None

    def lacks(self) -> bool:
        """Tell whether something published is not listed by the last reply, and nobody knows yet if it is elsewhere."""
        there = self._moved(self._candidate or {}).union(item.id for item in self.seen.instances)
        return not self._is_doubtful() and not (self.guard.published or {}).keys() <= there

    def release(self, now: float) -> bool:
        """Publish what the catalogue shows, whatever the guard thinks of it; True if that changed anything.

        Where nothing was ever published, nothing is held: that a catalogue shows nothing stays no answer.
        """
        before = self.guard.published
        if self._candidate is None or before is None:
            return False
        self._candidate = self.wanted.table(now, self.guard.policy.absent_s)
        self.guard.release(self._candidate, now)
        self._coalescer.clear()
        self.settled = True
        return before != self.guard.published

    def _is_doubtful(self) -> bool:
        """Tell whether the last reply takes something away and has to be confirmed first."""
        trust = self._trust
        if not trust.doubted or trust.confirmed or self._candidate is None:
            return False
        return not (self.guard.published or {}).keys() <= self._candidate.keys()

    def _moved(self, candidate: Mapping[str, Instance]) -> frozenset[str]:
        """Return the ids that are missing and not gone: listed elsewhere, or their server is under another id."""
        published = self.guard.published or {}
        missing = published.keys() - candidate.keys()
        addresses = {item.address for item in candidate.values()} if missing else ()
        return self._elsewhere.union(name for name in missing if published[name].address in addresses)

    def _add_urgent(self, candidate: Mapping[str, Instance], now: float) -> None:
        """Publish what is new, and what has gone into maintenance, without waiting for the burst to end."""
        published = self.guard.published
        if published is None:
            return
        urgent = {
            name: item
            for name, item in candidate.items()
            if name not in published or (item.condition is Condition.MAINTENANCE and item != published[name])
        }
        if urgent:
            self.guard.add(urgent, now)

    def _offer(self, candidate: Mapping[str, Instance], now: float) -> None:
        gone = (self.guard.published or {}).keys() - candidate.keys()
        self.guard.offer(
            candidate,
            now,
            confirmed=self._trust.confirmed,
            denied=self._trust.denied,
            answering=set(filter(self._answers, gone)),
            elsewhere=self._moved(candidate),
        )
        self._coalescer.clear()
        self.settled = True
