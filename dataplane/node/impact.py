"""What a snapshot changes, and what applying it would do: the `changes` and the `impact` of a plan, from live counters."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

from dataplane.core.spec import BackendSpec, Mode, OperatorState
from dataplane.net.backend import Backend
from dataplane.node.change import Prepared
from dataplane.node.drain import home_of
from dataplane.node.impact_tls import certificate_impacts, name_impacts
from dataplane.node.node import Node
from dataplane.node.running_service import RunningService
from dataplane.node.slices import SLICE
from dataplane.node.sticky_tables import moved_share
from dataplane.node.tls import ServiceTls, tls_of
from schemas.changes import Compared, differences, listened
from schemas.replies import Change, Impact
from schemas.snapshot import Service

Held = Callable[[str, "Backend"], tuple[int, int]]
"""Tells the active and the pooled connections of a backend of a service."""


def change_steps(
    old: Mapping[str, Service], new: Mapping[str, Service]
) -> Generator[None, None, list[Change]]:
    """List the differences: services that go first, then the others in their order, each as `differences` has it.

    Yields after each SLICE of backends; the generator returns the list.
    """
    changes: list[Change] = []
    for name in [*(name for name in old if name not in new), *new]:
        before, after = old.get(name), new.get(name)
        if before is after:
            continue
        found = differences(name, *_compared(before, after))
        for count, change in enumerate(found):
            if change is not None:
                changes.append(change)
            if count % SLICE == 0:
                yield
    return changes


def _compared(before: Service | None, after: Service | None) -> Iterator[Compared | None]:
    """Yield both without what needs no look: of 10,000 backends nearly all are the same objects."""
    old: Sequence[Any]
    new: Sequence[Any]
    old, new = (() if one is None else one.backends for one in (before, after))
    if len(old) == len(new):
        others = [(one, other) for one, other in zip(old, new, strict=True) if one is not other]
        old, new = [one for one, _ in others], [other for _, other in others]
    else:
        same = set(map(id, old)) & set(map(id, new))
        old, new = ([one for one in each if id(one) not in same] for each in (old, new))
    for service, backends in ((before, old), (after, new)):
        if service is None:
            yield None
            continue
        listen = [one if isinstance(one, str) else one.written() for one in service.listen]
        options = service.model_dump(mode="json", exclude={"listen", "backends"})
        yield Compared(listened(listen), options, {one.id: vars(one) for one in backends})


def own_connections(_service: str, backend: Backend) -> tuple[int, int]:
    """Return those of this process."""
    return backend.active, len(backend.pool)


async def impact_of(
    node: Node, changes: list[Change], prepared: Mapping[str, Prepared], held: Held
) -> Impact:
    """Say what running `prepared`, which makes these changes, would do to the connections and clients of `node`."""
    impact: Impact = {"drain": [], "pool": [], "remap": {}, "listeners": []}
    for change in changes:
        if change["kind"] == "listener" and change["action"] != "change":
            action: Any = {"add": "bind", "remove": "close"}[change["action"]]
            impact["listeners"].append(
                {"action": action, "service": change["service"], "address": change["address"]}
            )
    for name, running in node.running.items():
        following = prepared.get(name)
        _add_service(running, following, impact, held)
        if (
            following is not None
            and following.spec.mode is Mode.STICKY
            and running.service.spec.mode is Mode.STICKY
        ):
            impact["remap"][name] = await _remap(running, following)
    _add_tls(node, prepared, impact)
    return impact


def _add_tls(node: Node, prepared: Mapping[str, Prepared], impact: Impact) -> None:
    before = {name: running.service for name, running in node.running.items()}
    certificates = [
        found
        for name in dict.fromkeys((*before, *prepared))
        for found in certificate_impacts(
            name,
            tls_of(before[name]) if name in before else ServiceTls(),
            prepared[name].tls if name in prepared else ServiceTls(),
        )
    ]
    if certificates:
        impact["certificates"] = certificates
    names = name_impacts((one.spec for one in before.values()), (one.spec for one in prepared.values()))
    if names:
        impact["names"] = names


def _add_service(running: RunningService, following: Prepared | None, impact: Impact, held: Held) -> None:
    name = running.service.name
    homes = home_of(following.effective.values() if following else ())
    for backend in running.service.backends.values():
        after = following.effective.get(backend.id) if following else None
        moved = after is None or after.address != backend.spec.address
        # Connections stay with their address, under whatever id it has then.
        home = homes.get(backend.spec.address) if moved else after
        active, pooled = held(name, backend)
        if _ends(backend.spec, home) and active:
            impact["drain"].append({"service": name, "id": backend.id, "connections": active})
        cleared = moved or _ends(backend.spec, after) or (after is not None and not after.weight)
        cleared |= following is not None and following.spec.pool.mode is not running.service.spec.pool.mode
        if cleared and pooled:
            impact["pool"].append({"service": name, "id": backend.id, "connections": pooled})


def _ends(before: BackendSpec, after: BackendSpec | None) -> bool:
    """Tell whether a backend takes no new connections any more."""
    return after is None or (
        after.state is not OperatorState.ENABLED and before.state is OperatorState.ENABLED
    )


async def _remap(running: RunningService, following: Prepared) -> str:
    usable = {backend.id for backend in running.service.backends.values() if backend.usable}
    sick = {
        backend.id
        for backend in running.service.backends.values()
        if not running.health(backend).state.usable
    }
    then = {
        spec.id
        for spec in following.effective.values()
        if spec.state is OperatorState.ENABLED and spec.weight and spec.id not in sick
    }
    if running.service.spec.seed != following.spec.seed:
        return "100%"
    share = await moved_share(running.tables, following.tables, usable, then)
    return f"{round(share * 100, 2):g}%"
