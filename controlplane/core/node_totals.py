"""What the clients of a node met, counted on: data planes' counters begin again with each process and each backend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from controlplane.core.node_record import FirstByte, Outcomes

_Key: TypeAlias = tuple[str, ...]
"""The process, the service, and the backend's id if it is about one."""
_NOTHING = Outcomes()


class NodeTotals:
    """Sums what data planes' statuses say, by service: a counter that has fallen has begun again, and nothing is lost."""

    def __init__(self) -> None:
        self._counted: dict[str, Outcomes] = {}
        self._last: dict[_Key, Outcomes] = {}
        self._standing: dict[str, Outcomes] = {}

    def take(self, statuses: Iterable[Mapping[str, Any]]) -> None:
        """Take in the newest status of every data plane."""
        known, self._last = self._last, {}
        backends: dict[str, Outcomes] = {}
        for status in statuses:
            process = str(status.get("instance") or status.get("pid"))
            for name, service in status.get("services", {}).items():
                self._count(name, (process, name), _of_service(service), known)
                for backend in service["backends"]:
                    self._count(name, (process, name, backend["id"]), _of_backend(backend), known)
                now = _standing(service)
                before = backends.get(name, now)
                backends[name] = Outcomes(
                    usable=min(before.usable, now.usable), backends=max(before.backends, now.backends)
                )
        self._counted = {name: self._counted.get(name, _NOTHING) for name in backends}
        self._standing = backends

    def outcomes(self) -> dict[str, Outcomes]:
        """Return the sums, by service; of one that nobody has any more, nothing."""
        return {name: one + self._standing[name] for name, one in self._counted.items()}

    def _count(self, name: str, key: _Key, now: Outcomes, known: Mapping[_Key, Outcomes]) -> None:
        self._last[key] = now
        self._counted[name] = self._counted.get(name, _NOTHING) + _since(known.get(key, _NOTHING), now)


def _of_service(service: Mapping[str, Any]) -> Outcomes:
    totals = service.get("totals", {})
    return Outcomes(connections=totals.get("connections", 0), failures=totals.get("harmed", 0))


def _of_backend(backend: Mapping[str, Any]) -> Outcomes:
    totals = backend.get("totals", {})
    times = totals.get("first_byte") or {"count": 0, "sum_s": 0.0, "buckets": {}}
    buckets = {_milliseconds(bound): count for bound, count in times["buckets"].items()}
    return Outcomes(
        ejections=totals.get("ejections", 0),
        first_byte_ms=FirstByte(times["count"], times["sum_s"] * 1000, buckets),
    )


def _milliseconds(bound: str) -> str:
    return bound if bound == "+Inf" else f"{float(bound) * 1000:g}"


def _since(before: Outcomes, now: Outcomes) -> Outcomes:
    """Return what has come; all of it, if anything has fallen."""
    old, new = before.first_byte_ms, now.first_byte_ms
    pairs = [
        (before.connections, now.connections),
        (before.failures, now.failures),
        (before.ejections, now.ejections),
        (old.count, new.count),
    ]
    if any(later < earlier for earlier, later in pairs):
        return now
    connections, failures, ejections, count = (later - earlier for earlier, later in pairs)
    buckets = {
        bound: more
        for bound, number in new.buckets.items()
        if (more := number - old.buckets.get(bound, 0)) > 0
    }
    return Outcomes(
        connections, failures, ejections, first_byte_ms=FirstByte(count, max(0.0, new.sum - old.sum), buckets)
    )


def _standing(service: Mapping[str, Any]) -> Outcomes:
    """Return how many backends there are, and how many of them get clients by what is wanted and seen."""
    there = [each for each in service["backends"] if not each.get("removed")]
    usable = sum(
        each["state"] == "enabled" and each["weight"] > 0 and each["health"]["state"] in {"up", "unknown"}
        for each in there
    )
    return Outcomes(usable=usable, backends=len(there))
