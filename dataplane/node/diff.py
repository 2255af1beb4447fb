"""What one snapshot changes in another: the `changes` of the API, unchanged things left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from dataplane.node.slices import SLICE
from schemas.listeners import addresses_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from schemas.replies import Change
    from schemas.snapshot import Service

__all__ = ["change_steps"]


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
    """Yield each difference, and None for each backend that is the same."""
    yield from _listeners(name, _listen(old), _listen(new))
    if old is not None and new is not None:
        fields = _fields(_options(old), _options(new))
        if fields:
            yield {"action": "change", "kind": "option", "service": name, "fields": fields}
    before = {backend.id: backend for backend in (old.backends if old else ())}
    after = {backend.id: backend for backend in (new.backends if new else ())}
    for backend_id in before:
        if backend_id not in after:
            yield {"action": "remove", "kind": "backend", "service": name, "id": backend_id}
    for backend_id, backend in after.items():
        known = before.get(backend_id)
        if known is None:
            yield {"action": "add", "kind": "backend", "service": name, "id": backend_id}
        elif known == backend:
            yield None
        else:
            changed = _fields(known.model_dump(mode="json"), backend.model_dump(mode="json"))
            yield {
                "action": "change",
                "kind": "backend",
                "service": name,
                "id": backend_id,
                "fields": changed,
            }


def _listen(service: Service | None) -> dict[str, dict[str, Any]]:
    """Return the options of each address that a service listens on."""
    found: dict[str, dict[str, Any]] = {}
    for one in service.listen if service else ():
        said = {} if isinstance(one, str) else one.written()
        options = {name: value for name, value in said.items() if name not in {"address", "dual_stack"}}
        found |= dict.fromkeys(addresses_of(one), options)
    return found


def _listeners(
    name: str, old: Mapping[str, dict[str, Any]], new: Mapping[str, dict[str, Any]]
) -> Iterator[Change]:
    for address in old:
        if address not in new:
            yield {"action": "remove", "kind": "listener", "service": name, "address": address}
    for address, options in new.items():
        if address not in old:
            yield {"action": "add", "kind": "listener", "service": name, "address": address}
        elif fields := _fields(old[address], options):
            yield {
                "action": "change",
                "kind": "listener",
                "service": name,
                "address": address,
                "fields": fields,
            }


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
