"""What counters say about the time between two looks: rates, shares, quantiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Buckets", "Look", "Row", "quantile", "rows"]

Buckets = Sequence[tuple[float, float]]
"""Upper bound in seconds and how many were at most that, cumulative, the bounds ascending."""


@dataclass(frozen=True, slots=True)
class Look:
    """All counters at one moment."""

    at: float
    """Monotonic seconds."""
    services: Mapping[str, Any]
    """The `services` of a node's status."""
    connects: Mapping[tuple[str, str], Buckets] = field(default_factory=dict)
    """Times to connect, by service and backend id."""


@dataclass(frozen=True, slots=True)
class Row:
    """One backend, between two looks. Rates are per second; None: nothing happened that could be measured."""

    service: str
    id: str
    state: str
    health: str
    active: int
    connections: float
    bytes_in: float
    bytes_out: float
    hit_rate: float | None
    """Share of the connections that the pool served, 0..1."""
    connect_p99_s: float | None


def rows(before: Look, after: Look) -> list[Row]:
    """Compare two looks, backend by backend, in the order of the status."""
    elapsed = max(after.at - before.at, 1e-9)
    return [
        _row(name, backend, before, after, elapsed)
        for name, service in after.services.items()
        for backend in service["backends"]
    ]


def _row(service: str, backend: Mapping[str, Any], before: Look, after: Look, elapsed: float) -> Row:
    totals = backend["totals"]
    old = _old_totals(service, backend["id"], before)

    def rate(key: str) -> float:
        # A restarted data plane counts from zero again: what it has counted since is what there is.
        now, then = float(totals[key]), float(old.get(key, 0))
        return (now - then if now >= then else now) / elapsed

    pool, pool_before = totals["pool"], old.get("pool", {"hits": 0, "misses": 0})
    hits = max(0, pool["hits"] - pool_before["hits"])
    misses = max(0, pool["misses"] - pool_before["misses"])
    place = (service, backend["id"])
    return Row(
        service=service,
        id=backend["id"],
        state=backend["state"],
        health=backend["health"]["state"],
        active=backend["active"],
        connections=rate("connections"),
        bytes_in=rate("bytes_in"),
        bytes_out=rate("bytes_out"),
        hit_rate=hits / (hits + misses) if hits + misses else None,
        connect_p99_s=quantile(0.99, before.connects.get(place, ()), after.connects.get(place, ())),
    )


def _old_totals(service: str, backend: str, before: Look) -> Mapping[str, Any]:
    known = before.services.get(service, {"backends": []})["backends"]
    empty: Mapping[str, Any] = {}
    return next((each["totals"] for each in known if each["id"] == backend), empty)


def quantile(share: float, before: Buckets, after: Buckets) -> float | None:
    """Return the upper bound of the bucket in which a quantile of the new observations lies, in seconds.

    Args:
        share: 0..1.
        before: The buckets at the first look; empty: all observations are new.
        after: The buckets at the second.

    Returns:
        None without new observations; infinity if they are above every bound.
    """
    old = dict(before)
    new = [(bound, count - old.get(bound, 0)) for bound, count in after]
    if not new or new[-1][1] <= 0:
        return None
    wanted = share * new[-1][1]
    return next(bound for bound, count in new if count >= wanted)
