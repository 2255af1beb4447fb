"""What one snapshot changes in another: the `changes` of the API, unchanged things left out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Literal, TypeVar, cast

from dataplane.node.slices import SLICE
from schemas.listeners import addresses_of
from schemas.replies import Change
from schemas.snapshot import Service

__all__ = ["change_steps"]

T = TypeVar("T")


def change_steps(
    old: Mapping[str, Service], new: Mapping[str, Service]
) -> Generator[None, None, list[Change]]:
    """List the differences: services first, then in each its listeners, options and backends.

    Yields after each SLICE of backends; the generator returns the list.
    """
    changes: list[Change] = []
    for name in [*(name for name in old if name not in new), *new]:
        before, after = old.get(name), new.get(name)
        if before is None or after is None:
            action: Literal["add", "remove"] = "add" if before is None else "remove"
            changes.append({"action": action, "kind": "service", "service": name})
        for count, change in enumerate(_members(name, before, after)):
            if change is not None:
                changes.append(change)
            if count % SLICE == 0:
                yield
    return changes


def _members(name: str, old: Service | None, new: Service | None) -> Iterator[Change | None]:
    """Yield each difference, and None for what is the same."""
    yield from _compared("listener", name, _listen(old), _listen(new), dict)
    if old is not None and new is not None:
        fields = _fields(_options(old), _options(new))
        if fields:
            yield {"action": "change", "kind": "option", "service": name, "fields": fields}
    before = {backend.id: backend for backend in (old.backends if old else ())}
    after = {backend.id: backend for backend in (new.backends if new else ())}
    yield from _compared("backend", name, before, after, lambda backend: backend.model_dump(mode="json"))


def _compared(
    kind: str, service: str, old: Mapping[str, T], new: Mapping[str, T], dump: Callable[[T], dict[str, Any]]
) -> Iterator[Change | None]:
    """Yield what has gone, then what has come or has changed, by address or by id, and None for what is the same."""
    key = "id" if kind == "backend" else "address"

    def change(action: str, name: str, **more: Any) -> Change:
        return cast("Change", {"action": action, "kind": kind, "service": service, key: name, **more})

    for name in old:
        if name not in new:
            yield change("remove", name)
    for name, after in new.items():
        if name not in old:
            yield change("add", name)
        elif old[name] == after:
            yield None
        else:
            yield change("change", name, fields=_fields(dump(old[name]), dump(after)))


def _listen(service: Service | None) -> dict[str, dict[str, Any]]:
    """Return the options of each address that a service listens on."""
    found: dict[str, dict[str, Any]] = {}
    for one in service.listen if service else ():
        said = {} if isinstance(one, str) else one.written()
        options = {name: value for name, value in said.items() if name not in {"address", "dual_stack"}}
        found |= dict.fromkeys(addresses_of(one), options)
    return found


def _options(service: Service) -> dict[str, Any]:
    return dict(_flatten("", service.model_dump(mode="json", exclude={"listen", "backends"})))


def _flatten(prefix: str, value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _flatten(f"{prefix}{key}.", item)
        else:
            yield f"{prefix}{key}", item


def _fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {"from": old.get(name), "to": new.get(name)}
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    }
