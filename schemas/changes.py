"""How two versions of a service differ: the `changes` of the API, unchanged things left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, cast

from schemas.addresses import listened_on
from schemas.replies import Change


class Compared(NamedTuple):
    """A service as it is compared."""

    listeners: Mapping[str, Mapping[str, Any]]
    """The options of each address, as `listened` returns them."""
    options: Mapping[str, Any]
    """All but listeners and backends, in JSON form."""
    backends: Mapping[str, Any]
    """By id; `dict` makes fields of each."""


_NOTHING: Final = Compared({}, {}, {})


def differences(service: str, old: Compared | None, new: Compared | None) -> Iterator[Change | None]:
    """Yield what differs: the service itself, its listeners, options, backends; and None for each that is the same.

    Of listeners and backends those that have gone come first; None for a service: there is none.
    """
    if old is None or new is None:
        yield {"action": "add" if old is None else "remove", "kind": "service", "service": service}
    before, after = old or _NOTHING, new or _NOTHING
    yield from _members("listener", "address", service, before.listeners, after.listeners)
    fields = _fields(_flat(before.options), _flat(after.options)) if old and new else {}
    if fields:
        yield {"action": "change", "kind": "option", "service": service, "fields": fields}
    yield from _members("backend", "id", service, before.backends, after.backends)


def listened(listen: Iterable[str | Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the options of each address that a snapshot's `listen` takes."""
    found: dict[str, Mapping[str, Any]] = {}
    for one in listen:
        said = {} if isinstance(one, str) else one
        options = {name: value for name, value in said.items() if name not in {"address", "dual_stack"}}
        found |= dict.fromkeys(listened_on(one), options)
    return found


def _members(
    kind: str, key: str, service: str, old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[Change | None]:
    def change(action: str, name: str, **more: Any) -> Change:
        return cast("Change", {"action": action, "kind": kind, "service": service, key: name, **more})

    for name in old:
        if name not in new:
            yield change("remove", name)
    for name, after in new.items():
        if name not in old:
            yield change("add", name)
        elif old[name] is after or old[name] == after:
            yield None
        else:
            yield change("change", name, fields=_fields(old[name], after))


def _flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"timeouts": {"idle": "5s"}}` becomes `{"timeouts.idle": "5s"}`."""
    flat: dict[str, Any] = {}
    for key, value in options.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        name: {"from": value, "to": new.get(name)} for name, value in old.items() if value != new.get(name)
    }
    if old.keys() != new.keys():
        for name, value in new.items():
            if name not in old and value is not None:
                fields[name] = {"from": None, "to": value}
    return fields
