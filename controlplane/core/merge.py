"""Operators' overrides: whose word holds for a backend's state and weight, since when, and until when.

Theory of operation:

1. An override is about one field (`state` or `weight`) of one backend of one service.
2. It ends when it is taken back: a word that repeats what the desired state says is no override.
3. It ends when a new desired state says something else about that same field, removes the backend, or
   hands the service over between `backends` and `discover`. A desired state that repeats itself ends none.
4. Discovery ends none: a discovered backend that goes and returns meets the override again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

FIELDS: Final = ("state", "weight")
"""What an operator may override."""

Configured = Mapping[str, Mapping[str, Mapping[str, Any]] | None]
"""`{service: {backend id: {state, weight}}}`; None instead of the backends of a discovered service."""


Place = tuple[str, str, str]
"""Service, backend id, field: what an override is about."""


@dataclass(frozen=True, slots=True)
class Override:
    """An operator's word about one field of one backend."""

    service: str
    id: str
    field: str
    """One of `FIELDS`."""
    value: str | int
    by: str
    """Who said so."""
    since: str
    """RFC 3339, UTC."""

    def place(self) -> Place:
        """Return what it is about; there is one override for each place."""
        return (self.service, self.id, self.field)


def surviving(overrides: Iterable[Override], old: Configured, new: Configured) -> tuple[Override, ...]:
    """Keep the overrides that a new desired state does not end (rules 3 and 4)."""
    return tuple(each for each in overrides if _said(old, each) == _said(new, each) != _GONE)


_GONE: Final = "gone"
_DISCOVERED: Final = "discovered"
"""What no state or weight is."""


def _said(configured: Configured, override: Override) -> object:
    backends = configured.get(override.service, {})
    if backends is None:
        return _DISCOVERED
    return backends.get(override.id, {}).get(override.field, _GONE)


def put(overrides: Iterable[Override], new: Override, *, configured: object) -> tuple[Override, ...]:
    """Take an operator's word in; it replaces an earlier one about the same place.

    `configured` is what the snapshot says about that place; the same value takes an override back (rule 2).
    """
    rest = tuple(each for each in overrides if each.place() != new.place())
    return rest if new.value == configured else (*rest, new)


def words(
    overrides: Iterable[Override], retracted: Iterable[Place], services: Mapping[str, Any]
) -> dict[Place, str | int]:
    """Say what a data plane must be told beside the snapshot, for those backends that the snapshot's services have.

    Where an override was taken back (`retracted`) the snapshot's own word is sent, which ends an override on a data
    plane that has not heard of it yet.
    """
    configured = {
        (name, backend["id"], field): backend[field]
        for name, service in services.items()
        for backend in service["backends"]
        for field in FIELDS
    }
    told = {place: configured[place] for place in retracted if place in configured}
    told.update({each.place(): each.value for each in overrides if each.place() in configured})
    return told
