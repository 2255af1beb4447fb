"""One status out of many: what the data planes of a node say, summed, and whether they agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from controlplane.core.certificates import join
from controlplane.core.merge import Override

_WORST_HEALTH: Final = {"up": 0, "unknown": 1, "ejected": 2, "down": 3}
_WORST_LISTENER: Final = {"accepting": 0, "paused": 1, "closing": 2}
_Join = Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one data plane, and how old that is."""

    name: str
    socket: str
    reachable: bool
    error: str | None = None
    """Why it cannot be asked, or what it refused; None if all is well."""
    age_s: float = 0.0
    """Seconds since `status` was true."""
    status: Mapping[str, Any] = field(default_factory=dict)
    """Its last `GET /v1/status`; empty if there never was one."""
    draining: bool = False
    """It is no data plane any more: it has given its name away, and finishes what it has."""
    gone_since: str | None = None
    """When its process was last alive, RFC 3339, if that has ended and left its socket behind."""


def dataplane_row(seen: Seen) -> dict[str, Any]:
    """Tell what one data plane runs, each worker included."""
    status = seen.status
    services = status.get("services", {})
    tables = {name: service["table_hash"] for name, service in services.items() if service.get("table_hash")}
    return {
        "name": status.get("name", seen.name),
        "socket": seen.socket,
        "pid": status.get("pid"),
        "instance": status.get("instance"),
        "reachable": seen.reachable,
        "error": seen.error,
        "gone_since": seen.gone_since,
        "generation": status.get("generation"),
        "hash": status.get("hash"),
        "age_s": round(seen.age_s, 3),
        "workers": list(status.get("workers", [])),
        "skew": status.get("skew"),
        "table_hash": tables,
    }


def draining_row(seen: Seen) -> dict[str, Any]:
    """Tell how much a process has left that drains."""
    status = seen.status
    return {
        "name": status["name"],
        "socket": seen.socket,
        "pid": status["pid"],
        "since": status["draining_since"],
        "connections": sum(service["active"] for service in status["services"].values()),
    }


def answered(report: Mapping[str, Any]) -> bool:
    """Tell whether any data plane of a node's status could be asked."""
    return any(each["reachable"] for each in report["dataplanes"])


def converged(rows: Sequence[Mapping[str, Any]], generation: int, digest: str) -> bool:
    """Tell whether every data plane and worker runs exactly this, and all sticky tables are the same.

    Without a data plane nothing runs anything: False.
    """
    wanted = (generation, digest)
    runs = [
        (each["generation"], each["hash"])
        for row in rows
        for each in (row, *row["workers"])
        if row["reachable"]
    ]
    if not rows or not all(row["reachable"] for row in rows) or any(pair != wanted for pair in runs):
        return False
    tables: dict[str, set[str]] = {}
    for row in rows:
        for service, table in row["table_hash"].items():
            tables.setdefault(service, set()).add(table)
    return all(len(distinct) == 1 for distinct in tables.values())


def join_services(statuses: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum the services of several data planes: counts are added, of states the worst is shown."""
    joined: dict[str, Any] = {}
    for status in statuses:
        for name, service in status.get("services", {}).items():
            joined[name] = _join_service(joined.get(name), service)
    return dict(sorted(joined.items()))


def _join_service(one: Mapping[str, Any] | None, two: Mapping[str, Any]) -> dict[str, Any]:
    if one is None:
        return dict(two)
    recent = [each.get("recent", {}) for each in (one, two)]
    shown = join(*(each.get("certificates", ()) for each in (one, two)))
    return {
        **one,
        **({"certificates": shown} if shown else {}),
        "panic": one.get("panic", False) or two.get("panic", False),
        "active": one["active"] + two["active"],
        "queued": one.get("queued", 0) + two.get("queued", 0),
        "listeners": _join_rows(one["listeners"], two["listeners"], "address", _join_listener),
        "totals": _add(one.get("totals", {}), two.get("totals", {})),
        "recent": {**_add(*recent), "window_s": max(each.get("window_s", 0.0) for each in recent)},
        "backends": _join_rows(one["backends"], two["backends"], "id", _join_backend),
    }


def _join_rows(
    one: Iterable[Mapping[str, Any]], two: Iterable[Mapping[str, Any]], key: str, join: _Join
) -> list[dict[str, Any]]:
    """Join the rows of two that have the same key, in the order of their first."""
    joined = {row[key]: dict(row) for row in one}
    for row in two:
        joined[row[key]] = join(joined[row[key]], row) if row[key] in joined else dict(row)
    return list(joined.values())


def _join_listener(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
    state = max(one["state"], two["state"], key=lambda state: _WORST_LISTENER.get(state, 9))
    return {**one, "state": state, "accepted": one.get("accepted", 0) + two.get("accepted", 0)}


def _join_backend(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **one,
        "health": max(one["health"], two["health"], key=_badness),
        "overridden": {**one.get("overridden", {}), **two.get("overridden", {})},
        "active": one["active"] + two["active"],
        "pooled": one["pooled"] + two["pooled"],
        "totals": _add(one.get("totals", {}), two.get("totals", {})),
    }


def _badness(health: Mapping[str, Any]) -> tuple[int, bool]:
    return _WORST_HEALTH.get(health["state"], 9), not health.get("reachable", True)


def _add(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
    total: dict[str, Any] = dict(one)
    for key, value in two.items():
        if isinstance(value, Mapping):
            total[key] = _add(total.get(key, {}), value)
        else:
            total[key] = total.get(key, 0) + value
    return total


def _overrides(
    services: Mapping[str, Any], recorded: Sequence[Override], configured: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """List the overrides on record, then those that data planes run besides: who said so is unknown."""
    rows = [asdict(each) for each in recorded]
    places = {each.place() for each in recorded}
    rows += [
        {
            "service": name,
            "id": backend["id"],
            "field": key,
            "value": word["value"],
            "by": None,
            "since": word["since"],
        }
        for name, service in services.items()
        for backend in service["backends"]
        for key, word in backend.get("overridden", {}).items()
        if (name, backend["id"], key) not in places
    ]
    return [{**row, "configured": _configured(configured, row)} for row in rows]


def _configured(services: Mapping[str, Any], row: Mapping[str, Any]) -> Any:
    backends = services.get(row["service"], {}).get("backends", ())
    return next((each[row["field"]] for each in backends if each["id"] == row["id"]), None)


def node_status(
    seen: Sequence[Seen],
    overrides: Sequence[Override],
    *,
    wanted: tuple[int, str] | None = None,
    sources: Sequence[Mapping[str, Any]] = (),
    config_error: Mapping[str, Any] | None = None,
    configured: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Put the status of a node together, as `status --json` prints it.

    Args:
        seen: Its data planes, and what has been one.
        overrides: Operators' words on record.
        wanted: Generation and hash that should run; None: the newest that runs anywhere.
        sources: Where the desired state comes from, and how each source fares.
        config_error: Why the watched file's newest content is not what runs; None: it is.
        configured: The services of the accepted snapshot, which tell what overrides override; None: unknown.
    """
    draining = [draining_row(each) for each in seen if each.draining and each.status]
    seen = [each for each in seen if not each.draining]
    rows = [dataplane_row(each) for each in seen]
    known = [(row["generation"], row["hash"]) for row in rows if row["generation"] is not None]
    generation, digest = wanted or max(known, default=(0, ""))
    services = join_services(each.status for each in seen if each.status)
    return {
        "generation": generation,
        "hash": digest,
        "converged": converged(rows, generation, digest),
        "dataplanes": rows,
        "draining": draining,
        "services": services,
        "sources": [dict(each) for each in sources],
        "overrides": _overrides(services, overrides, configured or {}),
        "unserved": [],
        "share": None,
        "config_error": None if config_error is None else dict(config_error),
    }
