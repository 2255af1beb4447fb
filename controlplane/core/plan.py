"""What changes between two sets of services, and what many data planes say about it together.

Services are the JSON form of a snapshot: `{name: {listen, mode, backends, ...}}`, every default resolved.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from schemas.addresses import listened_on

__all__ = ["Changes", "Services", "diff", "join_changes", "join_impacts", "remaps_above"]

Services = Mapping[str, Mapping[str, Any]]
"""`{name: service}`, the JSON form of a snapshot's services."""
Changes = list[dict[str, Any]]
"""`[{action, kind, service, id?, address?, fields?}]`, as the data planes' dry run answers."""

_OWN_KIND: Final = frozenset({"listen", "backends"})
"""Keys of a service that have a kind of change of their own; the others are options."""


def diff(old: Services, new: Services) -> Changes:
    """Name everything that differs, and nothing else, in a stable order.

    Services first in the order of their names; within one: itself, its listeners, options, backends.
    """
    return [change for name in sorted(old.keys() | new.keys()) for change in _service(name, old, new)]


def _service(name: str, old: Services, new: Services) -> Iterator[dict[str, Any]]:
    before, after = old.get(name), new.get(name)
    if before is None:
        yield {"action": "add", "kind": "service", "service": name}
    elif after is None:
        yield {"action": "remove", "kind": "service", "service": name}
    yield from _listeners(name, before or {}, after or {})
    if before is not None and after is not None:
        fields = _fields(_flat(before, _OWN_KIND), _flat(after, _OWN_KIND))
        if fields:
            yield {"action": "change", "kind": "option", "service": name, "fields": fields}
    yield from _backends(name, before or {}, after or {})


def _listeners(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    before, after = _listen(old), _listen(new)
    head = {"kind": "listener", "service": name}
    for address in sorted(before.keys() - after.keys()):
        yield {"action": "remove", **head, "address": address}
    for address in sorted(after.keys() - before.keys()):
        yield {"action": "add", **head, "address": address}
    for address in sorted(before.keys() & after.keys()):
        if fields := _fields(before[address], after[address]):
            yield {"action": "change", **head, "address": address, "fields": fields}


def _listen(service: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the options of each address that a service listens on."""
    return {
        address: {key: value for key, value in options.items() if key not in {"address", "dual_stack"}}
        for listener in service.get("listen", [])
        for options in ({} if isinstance(listener, str) else listener,)
        for address in listened_on(listener)
    }


def _backends(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    before = {backend["id"]: backend for backend in old.get("backends", [])}
    after = {backend["id"]: backend for backend in new.get("backends", [])}
    for key in sorted(before.keys() | after.keys()):
        head = {"kind": "backend", "service": name, "id": key}
        if key not in after:
            yield {"action": "remove", **head}
        elif key not in before:
            yield {"action": "add", **head}
        elif fields := _fields(before[key], after[key]):
            yield {"action": "change", **head, "fields": fields}


def _flat(service: Mapping[str, Any], without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """`{"timeouts": {"idle": "5s"}}` becomes `{"timeouts.idle": "5s"}`."""
    flat: dict[str, Any] = {}
    for key, value in service.items():
        if key in without:
            continue
        if isinstance(value, Mapping):
            flat.update({f"{key}.{inner}": leaf for inner, leaf in _flat(value).items()})
        else:
            flat[key] = value
    return flat


def _fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        key: {"from": old.get(key), "to": new.get(key)}
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    }


def join_changes(answers: Iterable[Changes]) -> Changes:
    """Name once each what any data plane would change: one that lags behind has more to do."""
    joined = {json.dumps(change, sort_keys=True): change for changes in answers for change in changes}
    return list(joined.values())


def join_impacts(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up what the data planes of one node say: connections are summed, of shares the largest counts, zero is left out."""
    return {
        "drain": _sum(answers, "drain"),
        "pool": _sum(answers, "pool"),
        "remap": _largest(answers),
        "listeners": join_changes(list(answer.get("listeners", [])) for answer in answers),
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
