"""What operators want of backends instead of what the snapshot says: field by field, until a snapshot changes that field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dataplane.core.spec import BackendSpec, OperatorState
from dataplane.errors import Refused
from dataplane.node.node import Node
from dataplane.node.running_service import RunningService
from dataplane.node.slices import sliced
from schemas.api import BackendPatch
from schemas.errors import MAX_PROBLEMS, format_path


@dataclass(frozen=True, slots=True)
class Override:
    """What an operator's word has changed about one backend."""

    spec: BackendSpec
    """As it is from now on."""
    begun: Mapping[str, Any]
    """The values of fields that are overridden from now on, or otherwise than before."""
    ended: Mapping[str, Any]
    """The values of fields that are no longer overridden."""

    def says(self) -> dict[str, Any]:
        """Return what the API answers about the backend."""
        return {"id": self.spec.id, "state": self.spec.state.value, "weight": self.spec.weight}


async def effective_specs(
    node: Node, name: str, patches: Mapping[str, BackendPatch], *, placed: bool
) -> tuple[RunningService, list[BackendSpec]]:
    """Return a service and what its backends are to be, in the order of `patches` (by id).

    Raises:
        Refused: 404: there is no such service, or not every one of the backends; with `placed` the details have the place
            of each that is not there.
    """
    running = node.running.get(name)
    if running is None:
        raise Refused(404, "no_such_service", f"there is no service {name}")
    backends = running.service.backends
    unknown = [backend_id for backend_id in patches if backend_id not in backends]
    if unknown:
        details = [
            {"path": format_path(("backends", backend_id)), "message": "there is no such backend"}
            for backend_id in unknown[: MAX_PROBLEMS if placed else 0]
        ]
        raise Refused(404, "no_such_backend", f"service {name} has no backend {unknown[0]}", details)
    effective = []
    async for backend_id, patch in sliced(patches.items()):
        effective.append(backends[backend_id].spec._replace(**_fields(patch)))
    return running, effective


async def note_overrides(
    node: Node,
    running: RunningService,
    effective: Sequence[BackendSpec],
    patches: Mapping[str, BackendPatch],
) -> list[Override]:
    """Note what is overridden from now on; return what that changes, in the order of `effective`.

    A field that is to be as the snapshot has it is overridden no more.
    """
    made, now = [], node.reactor.clock()
    async for spec in sliced(effective):
        key = running.service.name, spec.id
        patch, configured = patches[spec.id], running.configured[spec.id]
        before = node.overrides.get(key, {})
        override = dict(before)
        for field, value in _fields(patch).items():
            if getattr(configured, field) == value:
                override.pop(field, None)
            elif override.get(field, (None,))[0] != value:
                override[field] = (value, now)
        node.overrides[key] = override
        if not override:
            del node.overrides[key]
        begun = {field: getattr(patch, field) for field in override if override[field] != before.get(field)}
        ended = {field: getattr(patch, field) for field in before if field not in override}
        made.append(Override(spec, begun, ended))
    return made


def _fields(patch: BackendPatch) -> dict[str, Any]:
    """Return the overridden fields of a backend's spec."""
    given = {"state": patch.state and OperatorState(patch.state), "weight": patch.weight}
    return {field: value for field, value in given.items() if value is not None}


def tell_override(node: Node, name: str, override: Override) -> None:
    """Tell what has changed: nothing, if an operator or the control plane only said the same again."""
    events, backend_id = node.events, override.spec.id
    if override.begun:
        events.emit("override", service=name, backend=backend_id, **override.begun)
    if override.ended:
        events.emit("override_ended", service=name, backend=backend_id, **override.ended)


def tell_overruled(node: Node, before: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
    """Tell which of the overrides that there were `before` a snapshot has ended."""
    for (name, backend_id), fields in before.items():
        still = node.overrides.get((name, backend_id), {})
        running = node.running.get(name)
        backend = running.service.backends.get(backend_id) if running else None
        if backend is not None:
            now = {field: getattr(backend.spec, field) for field in fields if field not in still}
            values = {field: getattr(value, "value", value) for field, value in now.items()}
            tell_override(node, name, Override(backend.spec, {}, values))
