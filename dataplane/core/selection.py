"""Who may be picked now: one view of a service's backends, replaced as a whole.

A selection is rebuilt on each change of health, operator state or membership, and swapped by one assignment;
whose turn it is lives on in the balancers. Another weight, which decides how often but not who, is taken in
place where that is possible (`reweigh`): weights may change all day, and 10,000 backends take 14 ms to rebuild.
Rules:

1. Usable is what is enabled, has a weight and is healthy.
2. Tiers are tried in order: a connection gets to tier 1 only when tier 0 has nobody left for it. The tier
   that serves is the first with a usable backend.
3. Panic: if less than a given share of the serving tier's enabled, weighted backends is usable, health is
   ignored there: it is likelier that the checks are wrong than that the few can carry the load of all. So it is
   in every tier if nobody is usable anywhere. But only health: who is not reachable stays out, for a connection
   that cannot be made serves nobody. With nobody reachable in any tier there are no candidates at all.
4. Slow start scales weights only while somebody ramps up, and never for `sticky`, whose clients would move.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from enum import Enum
from typing import Any, Final, Generic, NamedTuple

from dataplane.core.balance.base import Balancer, T
from dataplane.core.balance.leastconn import LeastConn
from dataplane.core.balance.p2c import PowerOfTwo
from dataplane.core.balance.random import Random
from dataplane.core.balance.rr import RoundRobin
from dataplane.core.balance.sticky import Sticky
from dataplane.core.balance.sticky_table import StickyTable
from dataplane.core.spec import BackendSpec, Mode

Builder = Callable[
    [Sequence[tuple[Any, int]], Callable[[], float], Balancer[Any] | None, StickyTable | None],
    Balancer[Any],
]

BALANCERS: Final[dict[Mode, Builder]] = {
    Mode.RR: lambda members, _random, previous, _table: RoundRobin(
        members, previous if isinstance(previous, RoundRobin) else None
    ),
    Mode.STICKY: lambda members, _random, _previous, table: Sticky(members, table),
    Mode.LEASTCONN: lambda members, _random, previous, _table: LeastConn(
        members, previous if isinstance(previous, LeastConn) else None
    ),
    Mode.P2C: lambda members, random, _previous, _table: PowerOfTwo(members, random),
    Mode.RANDOM: lambda members, random, _previous, _table: Random(members, random),
}
"""Each takes the members (usable targets with effective weights >= 1, in configured order, each id once); a source of
numbers, uniform in [0, 1); the balancer that it replaces, None if there is none: whose turn it was survives, if it is of
the same mode; and for `sticky` who owns which clients, None: everybody's second choice is the first."""

MAX_SKIPS: Final = 16
"""Full ones that are passed over one by one, each with a pick of its own; then all are looked at in one pass."""


class Lack(Enum):
    """Why a connection gets no backend."""

    FULL = "full"
    """Each one that is left was at its limit when it was looked at: worth waiting for."""
    NOBODY = "nobody"
    """None is left that has not been tried."""


class Standing(NamedTuple, Generic[T]):
    """One backend, and all that decides whether and how often it is picked; a tuple as a spec is (`core.spec`)."""

    target: T
    weight: int
    """As configured, after operators' overrides; 0..256, 0 takes no new connection."""
    tier: int
    enabled: bool
    """The operator state is `enabled`."""
    healthy: bool
    """Health is `up` or `unknown`, and the address is resolved."""
    reachable: bool
    """As far as is known a connection can be made; who is healthy is reachable."""
    ramp: float
    """Slow start: the share of the weight that counts, above 0, up to 1."""


@dataclass(slots=True, eq=False, repr=False)
class Selection(Generic[T]):
    """The candidates for new connections, best tier first; `build` makes it."""

    tiers: Mapping[int, Balancer[T]]
    """The balancers of the tiers that have candidates, the serving one first."""
    _: KW_ONLY
    panicking: Collection[int] = ()
    """The tiers in which health is ignored."""
    usable: int = 0
    """How many backends are usable, over all tiers."""
    candidates: Collection[T] = ()
    """All whom `pick` may return, in any order."""
    rigid: bool = False
    """Whether another weight needs another selection."""
    tracks_load: bool = field(init=False)
    """Whether `changed` must be called."""
    _balancers: tuple[Balancer[T], ...] = field(init=False)

    def __post_init__(self) -> None:
        """Have the balancers at hand."""
        self._balancers = tuple(self.tiers.values())
        self.tracks_load = any(balancer.tracks_load for balancer in self._balancers)

    @property
    def tier(self) -> int | None:
        """The tier that serves; None if nobody does."""
        return next(iter(self.tiers), None)

    @classmethod
    def build(
        cls,
        standings: Iterable[Standing[T]],
        *,
        mode: Mode,
        panic: float,
        random: Callable[[], float],
        tables: Mapping[int, StickyTable],
        previous: Selection[T] | None,
    ) -> Selection[T]:
        """Build the selection that follows `previous`, which knows whose turn it is.

        `standings` are all backends of the service, in configured order; below `panic`, a share 0..1, health is
        ignored (0: never); `random` is uniform in [0, 1); `tables` are by tier, of the members that `sticky_members`
        names.
        """
        tiers: dict[int, list[Standing[T]]] = {}
        usable: dict[int, int] = {}
        for standing in standings:
            if standing.enabled and standing.weight:
                tiers.setdefault(standing.tier, []).append(standing)
                if standing.healthy:
                    usable[standing.tier] = usable.get(standing.tier, 0) + 1
        panicking = _panicking(tiers, usable, panic)
        balancers: dict[int, Balancer[T]] = {}
        everybody: list[T] = []
        rigid = mode is Mode.STICKY
        for tier in sorted(usable.keys() | panicking):
            ignored = tier in panicking
            candidates = [one for one in tiers[tier] if one.healthy or (ignored and one.reachable)]
            ramps = mode is not Mode.STICKY and any(standing.ramp < 1 for standing in candidates)
            rigid = rigid or ramps
            everybody += [standing.target for standing in candidates]
            balancers[tier] = BALANCERS[mode](
                _members(candidates, ramps=ramps),
                random,
                None if previous is None else previous.balancer(tier),
                tables.get(tier),
            )
        return cls(
            balancers, panicking=panicking, usable=sum(usable.values()), candidates=everybody, rigid=rigid
        )

    @property
    def panic(self) -> bool:
        """Whether health is ignored somewhere."""
        return bool(self.panicking)

    def reweigh(self, old: Standing[T], new: Standing[T]) -> bool:
        """Take another weight of one backend, which stood as `old` says, in place.

        False, with nothing changed, if the selection has to be built anew: more than the weight has changed, or the
        weight in a way that concerns others.
        """
        if new._replace(weight=old.weight) != old:
            return False
        if new.weight == old.weight:
            return True
        if self.rigid or not old.weight or not new.weight:
            return False
        if not new.enabled or not (new.healthy or (new.reachable and new.tier in self.panicking)):
            return True
        balancer = self.tiers.get(new.tier)
        return balancer is not None and balancer.reweigh(new.target, old.weight, new.weight)

    def pick(self, key: int, tried: Collection[T]) -> T | None:
        """Return the best candidate that has not been tried; None if there is none. Arguments as for `Balancer.pick`."""
        for balancer in self._balancers:
            target = balancer.pick(key, tried)
            if target is not None:
                return target
        return None

    def pick_below(self, limit: int, key: int, tried: Collection[T]) -> T | Lack:
        """Return the best candidate that has not been tried and has less than `limit` connections, or why there is none.

        This is the only look: other workers may change each count at any time, so whoever looked again to learn
        why there was none would get the answer to another question.
        """
        skipped = tried
        for _ in range(MAX_SKIPS):
            target = self.pick(key, skipped)
            if target is None:
                return Lack.NOBODY if skipped is tried else Lack.FULL
            if target.active < limit:
                return target
            skipped = (*skipped, target)
        left = [target for target in self.candidates if target not in tried]
        free = {target for target in left if target.active < limit}
        if not free:
            return Lack.FULL if left else Lack.NOBODY
        return next(target for target in self.order(key) if target in free)

    def order(self, key: int) -> Iterator[T]:
        """Yield all candidates in the order in which one connection would try them now; change nothing."""
        for balancer in self._balancers:
            yield from balancer.order(key)

    def changed(self, target: T) -> None:
        """Take note that `target.active` has changed; needed only if `tracks_load`."""
        for balancer in self._balancers:
            balancer.changed(target)

    def balancer(self, tier: int) -> Balancer[T] | None:
        """Return a tier's balancer; None if it has no candidates."""
        return self.tiers.get(tier)


def sticky_members(backends: Iterable[BackendSpec]) -> dict[int, list[tuple[str, int]]]:
    """Return by tier the ids and weights over which `sticky` needs a table.

    Operator state and health do not matter: they are looked at when a client is, so that nobody else moves.
    """
    tiers: dict[int, list[tuple[str, int]]] = {}
    for backend in backends:
        if backend.weight:
            tiers.setdefault(backend.tier, []).append((backend.id, backend.weight))
    return tiers


def _panicking(
    tiers: Mapping[int, list[Standing[T]]], usable: Mapping[int, int], panic: float
) -> frozenset[int]:
    """Return the tiers in which health is ignored: none if that would bring nobody back."""
    if usable:
        serving = min(usable)
        few = usable[serving] / len(tiers[serving]) < panic
        concerned = [serving] if few else []
    else:
        concerned = list(tiers) if panic else []
    return frozenset(
        tier for tier in concerned if any(one.reachable and not one.healthy for one in tiers[tier])
    )


def _members(candidates: list[Standing[T]], *, ramps: bool) -> list[tuple[T, int]]:
    if ramps:
        return [(one.target, max(1, round(one.weight * STEPS * one.ramp))) for one in candidates]
    return [(one.target, one.weight) for one in candidates]


# --- slow start: the share of its weight that a backend gets while it warms up ---------------------

STEPS: Final = 16
"""Steps from nothing to the whole weight: scaled weights stay small integers, and a selection is rebuilt at most so
often for each backend that returns."""
_EARLY: Final = 1e-3
"""Part of a step by which it may come early: a timer that fires exactly on time must find it reached,
whatever was lost in rounding."""


def ramp(now: float, since: float, duration_s: float) -> float:
    """Return the share of the weight, 1/16..1; never 0, or nothing would ever warm up.

    It came up at monotonic second `since`, and has its whole weight after `duration_s`; 0: at once.
    """
    return _step(now, since, duration_s) / STEPS


def next_step(now: float, since: float, duration_s: float) -> float | None:
    """Return when `ramp` grows next, in monotonic seconds; None once it is 1."""
    step = _step(now, since, duration_s)
    return None if step == STEPS else since + (step + 1) * duration_s / STEPS


def _step(now: float, since: float, duration_s: float) -> int:
    if duration_s <= 0:
        return STEPS
    return min(max(1, int((now - since) * STEPS / duration_s + _EARLY)), STEPS)
