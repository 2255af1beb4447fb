"""Instances as backends of a snapshot, and as JSON in the state directory."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import Any

from pydantic import ValidationError

from controlplane.core.instances import Classified, Condition, Instance, Remark
from controlplane.core.weights import MAX_WEIGHT
from schemas.snapshot import Backend

__all__ = ["backend_of", "only_backends", "packed", "unpacked"]


def backend_of(item: Instance, weight: int) -> Backend:
    """Return an instance as a snapshot shows it, with the weight that fits its neighbours'.

    Raises:
        ValidationError: Snapshots have no place for it.
    """
    state = "drain" if item.condition is Condition.MAINTENANCE else "enabled"
    return Backend(id=item.id, address=item.address, weight=weight, tier=item.tier, state=state)


def only_backends(seen: Classified) -> Classified:
    """Reject what a snapshot has no place for, so that `backend_of` takes all the rest."""
    instances: list[Instance] = []
    rejected = list(seen.rejected)
    for item in seen.instances:
        try:
            _check(item)
        except ValidationError as error:
            rejected.append(Remark(item.id, str(error.errors()[0]["msg"])))
        else:
            instances.append(item)
    return replace(seen, instances=tuple(instances), rejected=tuple(rejected))


def packed(item: Instance) -> dict[str, Any]:
    """Return an instance as JSON."""
    return {**asdict(item), "condition": item.condition.value}


def unpacked(row: object) -> Instance | None:
    """Return a packed instance; None if it is none: a state file is input like any other."""
    if not isinstance(row, dict):
        return None
    try:
        known = {each.name: row[each.name] for each in fields(Instance)}
        item = Instance(**{**known, "condition": Condition(row["condition"])})
        _check(item)
    except (KeyError, ValueError, TypeError):
        return None
    return item


def _check(item: Instance) -> None:
    """Raise what `backend_of` would raise: a weight that is too large will be divided."""
    backend_of(item, min(item.weight, MAX_WEIGHT))
