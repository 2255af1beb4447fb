"""What counters say about the time between looks: rates, shares, quantiles, and how they went lately."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Buckets = Sequence[tuple[float, float]]
"""Upper bound in seconds and how many were at most that, cumulative, the bounds ascending."""

_LOOKS: Final = 4
"""A rate is measured over as many looks: the daemon's own period and ours beat against each other."""
_SHORTEST_S: Final = 0.5
"""Over less, a handful of connections would make a rate."""
_TRAIL: Final = 60
"""Rates that are remembered."""
_COUNTERS: Final = ("connections", "bytes_in", "bytes_out")
_POOL: Final = ("hits", "misses")


@dataclass(frozen=True, slots=True)
class Look:
    """All counters at one moment."""

    at: float
    """Monotonic seconds at which the counters were true."""
    services: Mapping[str, Any]
    """The `services` of a node's status."""
    connects: Mapping[tuple[str, str], Buckets] = field(default_factory=dict)
    """Times to connect, by service and backend id."""
    planes: frozenset[tuple[str, object]] = frozenset()
    """Name and process of each data plane that answered; among others than before, counters cannot be compared."""


@dataclass(frozen=True, slots=True)
class Row:
    """One backend lately. Rates are per second; None: nothing is known, or nothing happened to be measured."""

    service: str
    backend: Mapping[str, Any]
    """Its part of the status."""
    connections: float | None
    bytes_in: float | None
    bytes_out: float | None
    hits: float | None
    """Connections that the pool served, per second."""
    misses: float | None
    connect_p99_s: float | None
    trail: Sequence[float]
    """New connections per second at the looks so far, the newest last."""

    @property
    def place(self) -> tuple[str, str]:
        """Service and id: what a backend is known by."""
        return self.service, str(self.backend["id"])

    @property
    def hit_rate(self) -> float | None:
        """Share of the connections that the pool served, 0..1."""
        return share(self.hits, self.misses)


_Counts = tuple[tuple[int, ...], Buckets]
"""The counters of one backend at one look, and its times to connect."""


class Meter:
    """Takes looks, and tells the rates of every backend."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, dict[tuple[str, str], _Counts]]] = deque(maxlen=_LOOKS)
        self._trails: dict[tuple[str, str], deque[float]] = {}
        self._planes: frozenset[tuple[str, object]] = frozenset()
        self.rows: Sequence[Row] = []
        """Every backend of the last look, in the order of the status."""
        self.trail: deque[float] = deque(maxlen=_TRAIL)
        """New connections per second of all together at the looks so far, the newest last."""

    def take(self, look: Look) -> None:
        """Take a look in; one that is no newer than the last, as far as rates go, replaces only what is not one."""
        counts = {
            (name, backend["id"]): _counts(backend, look.connects.get((name, backend["id"]), ()))
            for name, service in look.services.items()
            for backend in service["backends"]
        }
        if look.planes != self._planes:
            self._looks.clear()
            self._planes = look.planes
        newer = not self._looks or look.at - self._looks[-1][0] >= _SHORTEST_S
        if newer:
            self._looks.append((look.at, counts))
        self.rows = [
            self._row(name, backend, newer=newer)
            for name, service in look.services.items()
            for backend in service["backends"]
        ]
        connections = total(row.connections for row in self.rows)
        if newer and connections is not None:
            self.trail.append(connections)
        self._trails = {place: trail for place, trail in self._trails.items() if place in counts}

    def _row(self, service: str, backend: Mapping[str, Any], *, newer: bool) -> Row:
        place = (service, backend["id"])
        trail = self._trails.setdefault(place, deque(maxlen=_TRAIL))
        known = [(at, counts[place]) for at, counts in self._looks if place in counts]
        rates: Sequence[float | None] = (None,) * (len(_COUNTERS) + len(_POOL))
        p99 = None
        if len(known) > 1 and self._planes:
            (then, (old, old_connects)), (now, (new, connects)) = known[0], known[-1]
            steps = [have - was for was, have in zip(old, new, strict=True)]
            if min(steps) >= 0:  # else a worker counts from zero again, and there is no difference to take
                rates = [step / (now - then) for step in steps]
                p99 = quantile(0.99, old_connects, connects)
        if newer and rates[0] is not None:
            trail.append(rates[0])
        connections, bytes_in, bytes_out, hits, misses = rates
        return Row(service, backend, connections, bytes_in, bytes_out, hits, misses, p99, tuple(trail))


def _counts(backend: Mapping[str, Any], connects: Buckets) -> _Counts:
    totals = backend.get("totals", {})
    pool = totals.get("pool", {})
    counters = [*(totals.get(key, 0) for key in _COUNTERS), *(pool.get(key, 0) for key in _POOL)]
    return tuple(map(int, counters)), connects


def share(hits: float | None, misses: float | None) -> float | None:
    """Return the share of hits, 0..1; None if there was neither, or nothing is known."""
    if hits is None or misses is None or hits + misses == 0:
        return None
    return hits / (hits + misses)


def total(values: Iterable[float | None]) -> float | None:
    """Sum what is known; None: nothing is."""
    known = [each for each in values if each is not None]
    return sum(known) if known else None


def quantile(share: float, before: Buckets, after: Buckets) -> float | None:
    """Return the upper bound of the bucket in which a quantile of the new observations lies, in seconds.

    `share` is 0..1; if `before` is empty, all observations are new. None without new ones; infinity if they are above
    every bound.
    """
    old = dict(before)
    new = [(bound, count - old.get(bound, 0)) for bound, count in after]
    if not new or new[-1][1] <= 0:
        return None
    wanted = share * new[-1][1]
    return next(bound for bound, count in new if count >= wanted)
