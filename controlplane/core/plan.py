"""What changes between two sets of services, and what many data planes say about it together.

Services are the JSON form of a snapshot: `{name: {listen, mode, backends, ...}}`, every default resolved.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from schemas.changes import Compared, differences, listened

Services = Mapping[str, Mapping[str, Any]]
"""`{name: service}`, the JSON form of a snapshot's services."""
Changes = list[dict[str, Any]]
"""`[{action, kind, service, id?, address?, fields?}]`, as the data planes' dry run answers."""

_KINDS: Final = ("service", "listener", "option", "backend")
_ACTIONS: Final = ("remove", "add", "change")


def diff(old: Services, new: Services) -> Changes:
    """Name everything that differs, and nothing else, in a stable order.

    Services in the order of their names; within one: itself, its listeners (removed, added, changed), options, backends,
    each of them and their fields in the order of names.
    """
    changes: Changes = []
    for name in sorted(old.keys() | new.keys()):
        found = differences(name, _compared(old.get(name)), _compared(new.get(name)))
        changes += sorted((dict(change) for change in found if change is not None), key=_order)
    for change in changes:
        if "fields" in change:
            change["fields"] = dict(sorted(change["fields"].items()))
    return changes


def _compared(service: Mapping[str, Any] | None) -> Compared | None:
    if service is None:
        return None
    options = {key: value for key, value in service.items() if key not in {"listen", "backends"}}
    backends = {backend["id"]: backend for backend in service.get("backends", ())}
    return Compared(listened(service.get("listen", ())), options, backends)


def _order(change: Mapping[str, Any]) -> tuple[int, int, str]:
    action = _ACTIONS.index(change["action"]) if change["kind"] == "listener" else 0
    return _KINDS.index(change["kind"]), action, change.get("address") or change.get("id") or ""


def join_changes(answers: Iterable[Changes]) -> Changes:
    """Name once each what any data plane would change: one that lags behind has more to do."""
    joined = {json.dumps(change, sort_keys=True): change for changes in answers for change in changes}
    return list(joined.values())


_TLS: Final = ("certificates", "names")
"""What is left out of an impact where there is none."""


def join_impacts(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up what the data planes of one node say: connections are summed, of shares the largest counts, zero is left out."""
    tls = {key: join_changes(list(answer.get(key, [])) for answer in answers) for key in _TLS}
    return {
        "drain": _sum(answers, "drain"),
        "pool": _sum(answers, "pool"),
        "remap": _largest(answers),
        "listeners": join_changes(list(answer.get("listeners", [])) for answer in answers),
        **{key: rows for key, rows in tls.items() if rows},
    }


def _sum(answers: Iterable[Mapping[str, Any]], key: str) -> list[dict[str, Any]]:
    totals: dict[tuple[str, str], int] = {}
    for answer in answers:
        for row in answer.get(key, []):
            place = (row["service"], row["id"])
            totals[place] = totals.get(place, 0) + row["connections"]
    return [{"service": service, "id": key, "connections": n} for (service, key), n in sorted(totals.items())]


def _largest(answers: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    shares: dict[str, str] = {}
    for answer in answers:
        for service, share in answer.get("remap", {}).items():
            if _share(share) > _share(shares.get(service, "0%")):
                shares[service] = share
    return dict(sorted(shares.items()))


def remaps_above(impact: Mapping[str, Any], limit: float) -> dict[str, str]:
    """Tell which sticky services would move a larger share of their clients than `limit` (0..1)."""
    return {service: share for service, share in impact["remap"].items() if _share(share) > limit}


def _share(text: str) -> float:
    return float(text.rstrip("%")) / 100
