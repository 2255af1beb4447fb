"""From what a catalogue shows to what is published: damping, coalescing and the guard, in that order.

Theory of operation
-------------------
1. `observe` takes a reply. An instance is wanted unless it is critical, flaps, or has been `lost` (its agent is
   silent) for longer than `absent_s` without answering the balancer's own checks.
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

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from controlplane.core.coalesce import Coalescer
from controlplane.core.flap import FlapDamper
from controlplane.core.guard import Guard, GuardPolicy, Held
from controlplane.core.instances import Classified, Condition, Instance

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Answers", "Track", "Trust"]

FAST_CONFIRM_S = 1.0
SLOW_CONFIRM_S = 10.0  # a hold without an end costs the servers a read now and then for as long as it lasts
FAST_FOR_S = 60.0

Answers = Callable[[str], bool]
"""Tells whether the backend of an id passes the balancer's own checks right now."""


@dataclass(frozen=True, slots=True)
class Trust:
    """How far a reply is to be believed when it takes something away."""

    confirmed: bool = False
    """A leader gave it."""
    doubted: bool = False
    """It came from a server that knows no leader, or does not say."""
    denied: bool = False
    """The catalogue said that it left out what the token may not read."""


@dataclass(slots=True)
class _Latest:
    seen: Classified | None = None
    trust: Trust = Trust()
    elsewhere: frozenset[str] = frozenset()
    lost_since: dict[str, float] = field(default_factory=dict)
    candidate: dict[str, Instance] | None = None
    settled: bool = True  # the guard has had the last word on this candidate


class Track:
    """One query's instances in one datacenter, on their way to being published."""

    __slots__ = ("_answers", "_coalescer", "_damper", "_guard", "_latest")

    def __init__(
        self,
        policy: GuardPolicy,
        *,
        answers: Answers,
        coalescer: Coalescer | None = None,
        damper: FlapDamper | None = None,
    ) -> None:
        self._guard: Guard[Instance] = Guard(policy)
        self._answers = answers
        self._coalescer = coalescer or Coalescer()
        self._damper = damper or FlapDamper()
        self._latest = _Latest()

    @property
    def published(self) -> Mapping[str, Instance] | None:
        """What holds now, by id; None before the first table."""
        return self._guard.published

    @property
    def held(self) -> Held | None:
        """What the guard keeps against the catalogue's word."""
        return self._guard.held

    @property
    def seen(self) -> Classified:
        """The last reply, as read."""
        return self._latest.seen or Classified()

    @property
    def heard(self) -> bool:
        """Whether there was a reply in this life."""
        return self._latest.seen is not None

    @property
    def settled(self) -> bool:
        """Whether the guard has had the last word on the last reply; until then a moment may change what holds."""
        return self._latest.settled

    def shown(self, now: float) -> Mapping[str, Instance] | None:
        """Return what `release` would publish: what the catalogue shows, if anything was published before."""
        if self._latest.candidate is None or self.published is None:
            return self.published
        return self._candidate(now)

    def flapping(self, now: float) -> list[str]:
        """Return the ids that are kept down because they flap, sorted."""
        return [item.id for item in self.seen.instances if self._damper.is_suppressed(item.id, now)]

    def set_policy(self, policy: GuardPolicy) -> None:
        """Let other limits hold from the next reply on."""
        self._guard.policy = policy

    def observe(
        self, seen: Classified, now: float, trust: Trust, elsewhere: frozenset[str] = frozenset()
    ) -> None:
        """Take the reply to a query; `advance` acts on it.

        Args:
            seen: The reply, classified.
            now: Monotonic seconds.
            trust: Where it came from.
            elsewhere: Ids that the catalogue lists, but not among what the query asks for.
        """
        latest = self._latest
        if trust.confirmed or self.held is not None or elsewhere != latest.elsewhere:
            latest.settled = False
        latest.seen, latest.trust, latest.elsewhere = seen, trust, elsewhere
        for instance in seen.instances:
            self._damper.note(instance.id, now, up=instance.condition is not Condition.CRITICAL)
        self._damper.prune({instance.id for instance in seen.instances}, now)
        lost = {item.id for item in seen.instances if item.condition is Condition.LOST}
        latest.lost_since = {name: latest.lost_since.get(name, now) for name in lost}

    def advance(self, now: float) -> bool:
        """Publish what may be published by now.

        Returns:
            True if what is published has changed.
        """
        latest, before = self._latest, self.published
        if latest.seen is None:
            return False
        candidate = self._candidate(now)
        if candidate != latest.candidate:
            latest.candidate = candidate
            latest.settled = False
            self._coalescer.change(now)
        if latest.settled:
            return False
        self._add_urgent(candidate, now)
        burst_ends = self._coalescer.due()
        # the guard has to hear of every emptiness, however short: it never publishes one at once
        at_once = not before or not candidate or burst_ends is None
        if (at_once or now >= (burst_ends or 0.0)) and not self._is_doubtful():
            self._offer(candidate, now)
        return before != self.published

    def due(self, now: float) -> float | None:
        """Return when `advance`, having been called at `now`, has something to do without a new reply.

        Returns:
            Monotonic seconds; None for not before the next reply.
        """
        latest = self._latest
        published = self.published or {}
        later = [
            since + self._guard.policy.absent_s
            for name, since in latest.lost_since.items()
            if name in published
        ]
        later.extend(self._damper.reuses())
        times = [at for at in later if at > now]
        burst_ends = self._coalescer.due()
        if burst_ends is not None and not latest.settled and not self._is_doubtful():
            times.append(burst_ends)
        return min(times, default=None)

    def confirm_every(self, now: float) -> float | None:
        """Return how often a reply that a leader confirms is needed, in seconds; None if none is needed."""
        if self.held is not None:
            return FAST_CONFIRM_S if now - self.held.since < FAST_FOR_S else self._slow_or_fast(self.held)
        candidate = self._latest.candidate
        if candidate is None or self.published is None:
            return None
        latest = self._latest
        moved = self._moved(candidate)
        why = self._guard.suspects(candidate, now, denied=latest.trust.denied, elsewhere=moved)
        return FAST_CONFIRM_S if self._is_doubtful() or why is not None else None

    def lacks(self) -> bool:
        """Tell whether something published is not listed by the last reply, and nobody knows yet if it is elsewhere."""
        latest = self._latest
        there = self._moved(latest.candidate or {}).union(item.id for item in self.seen.instances)
        return not self._is_doubtful() and not (self.published or {}).keys() <= there

    def restore(self, instances: Mapping[str, Instance], now: float) -> None:
        """Begin with what was published in an earlier life."""
        if self.published is None:
            self._guard.restore(instances, now)

    def release(self, now: float) -> bool:
        """Publish what the catalogue shows, whatever the guard thinks of it; True if that changed anything.

        Where nothing was ever published, nothing is held: that a catalogue shows nothing stays no answer.
        """
        before = self.published
        if self._latest.candidate is None or before is None:
            return False
        self._latest.candidate = self._candidate(now)
        self._guard.release(self._latest.candidate, now)
        self._coalescer.clear()
        self._latest.settled = True
        return before != self.published

    @staticmethod
    def _slow_or_fast(held: Held) -> float:
        return SLOW_CONFIRM_S if held.until is None else FAST_CONFIRM_S

    def _is_doubtful(self) -> bool:
        """Tell whether the last reply takes something away and has to be confirmed first."""
        trust, candidate = self._latest.trust, self._latest.candidate
        if not trust.doubted or trust.confirmed or candidate is None:
            return False
        return not (self.published or {}).keys() <= candidate.keys()

    def _candidate(self, now: float) -> dict[str, Instance]:
        return {item.id: item for item in self.seen.instances if self._is_wanted(item, now)}

    def _is_wanted(self, item: Instance, now: float) -> bool:
        if item.condition is Condition.CRITICAL:
            return False
        if item.condition is Condition.LOST:
            given_up_at = self._latest.lost_since.get(item.id, now) + self._guard.policy.absent_s
            if now >= given_up_at and not self._answers(item.id):
                return False
        return not self._damper.is_suppressed(item.id, now)

    def _moved(self, candidate: Mapping[str, Instance]) -> frozenset[str]:
        """Return the ids that are missing and not gone: listed elsewhere, or their server is under another id."""
        published = self.published or {}
        missing = published.keys() - candidate.keys()
        addresses = {item.address for item in candidate.values()} if missing else ()
        return self._latest.elsewhere.union(name for name in missing if published[name].address in addresses)

    def _add_urgent(self, candidate: Mapping[str, Instance], now: float) -> None:
        """Publish what is new, and what has gone into maintenance, without waiting for the burst to end."""
        published = self.published
        if published is None:
            return
        urgent = {
            name: item
            for name, item in candidate.items()
            if name not in published or (item.condition is Condition.MAINTENANCE and item != published[name])
        }
        if urgent:
            self._guard.add(urgent, now)

    def _offer(self, candidate: Mapping[str, Instance], now: float) -> None:
        trust = self._latest.trust
        answering = {name for name in (self.published or {}) if name not in candidate and self._answers(name)}
        self._guard.offer(
            candidate,
            now,
            confirmed=trust.confirmed,
            denied=trust.denied,
            answering=answering,
            elsewhere=self._moved(candidate),
        )
        self._coalescer.clear()
        self._latest.settled = True
