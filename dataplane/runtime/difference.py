"""What one snapshot changes in another: the `changes` of the API, unchanged things left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from schemas.api import Change
    from schemas.snapshot import Service

__all__ = ["changes_between"]


def changes_between(old: Mapping[str, Service], new: Mapping[str, Service]) -> list[Change]:
    """List the differences: services first, then in each its listeners, options and backends."""
    changes: list[Change] = []
    for name in old:
        if name not in new:
            changes.append({"action": "remove", "kind": "service", "service": name})
            changes.extend(_members(name, old[name], None))
    for name, service in new.items():
        before = old.get(name)
        if before is None:
            changes.append({"action": "add", "kind": "service", "service": name})
        if before != service:
            changes.extend(_members(name, before, service))
    return changes


def _members(name: str, old: Service | None, new: Service | None) -> Iterator[Change]:
    yield from _listeners(name, old.listen if old else (), new.listen if new else ())
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
        elif known != backend:
            changed = _fields(known.model_dump(mode="json"), backend.model_dump(mode="json"))
            yield {
                "action": "change",
                "kind": "backend",
                "service": name,
                "id": backend_id,
                "fields": changed,
            }


def _listeners(name: str, old: tuple[str, ...], new: tuple[str, ...]) -> Iterator[Change]:
    for address in old:
        if address not in new:
            yield {"action": "remove", "kind": "listener", "service": name, "address": address}
    for address in new:
        if address not in old:
            yield {"action": "add", "kind": "listener", "service": name, "address": address}


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
