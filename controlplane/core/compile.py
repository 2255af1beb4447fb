"""Desired state and discovery in, one complete snapshot out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controlplane.core.instances import Remark
from controlplane.core.merge import Configured
from schemas.desired import SHARED_LIMITS, Desired, DesiredService, resolve
from schemas.errors import Path
from schemas.loops import ANYWHERE, Loops, Machine
from schemas.snapshot import Backend, backend_loops, digest


@dataclass(frozen=True, slots=True)
class Compiled:
    """What data planes should run, but for its generation."""

    services: dict[str, Any]
    """The JSON form of a snapshot's services."""
    hash: str
    discovered: tuple[str, ...]
    """Services whose backends come from discovery."""
    waiting: tuple[str, ...]
    """Those that are left out, because nothing was ever known of their backends."""
    rejected: Mapping[str, tuple[Remark, ...]]
    """By service: the discovered backends that lead back into the balancer, which are left out."""
    loops: tuple[tuple[Path, str], ...] = ()
    """Listed backends that do so on this machine: where each stands, and why it cannot be used."""
    scoped: Mapping[str, dict[str, float]] = field(default_factory=dict)
    """By service: the limits that all nodes share, as they are written."""

    def warnings(self) -> list[str]:
        """Say what is not used."""
        return [
            f"service {name} does not use {remark.id}: {remark.why}"
            for name, remarks in self.rejected.items()
            for remark in remarks
        ]

    def body(self, generation: int) -> dict[str, Any]:
        """Return the snapshot that is pushed."""
        return {"version": 1, "generation": generation, "hash": self.hash, "services": self.services}


def compile_services(
    desired: Desired,
    discovered: Mapping[str, Sequence[Backend]],
    held: Mapping[str, Sequence[Mapping[str, Any]]],
    machine: Machine = ANYWHERE,
    nodes: int = 1,
) -> Compiled:
    """Resolve what discovery knows, by service; a service may be known to have no backends.

    `held` is what ran last, in the JSON form of backends: it stands in where discovery has not answered yet, so that a
    start without Consul keeps everybody served. `machine` is where the data planes run, and `nodes` how many of them share
    limits of `scope: cluster`. Services of which nothing is known are left out: a listener without a backend would only refuse.
    """
    named = tuple(sorted(name for name, service in desired.services.items() if service.discover is not None))
    known: dict[str, Sequence[Backend]] = {}
    for name in named:
        if name in discovered:
            known[name] = discovered[name]
        elif name in held:
            known[name] = [Backend.model_validate(each) for each in held[name]]
    waiting = tuple(name for name in named if name not in known)
    ready = {name: service for name, service in desired.services.items() if name not in waiting}
    loops = Loops({name: service.addresses for name, service in ready.items()}, machine)
    listed = backend_loops({name: service.backends or () for name, service in ready.items()}, loops)
    rejected = _take_out_loops(known, loops)
    services = resolve(desired.model_copy(update={"services": ready}), known, nodes)
    return Compiled(
        services={name: service.model_dump(mode="json") for name, service in services.items()},
        hash=digest(services),
        discovered=named,
        waiting=waiting,
        rejected=rejected,
        loops=tuple((("services", *below), message) for below, message in listed),
        scoped={name: each for name, service in ready.items() if (each := _shared_limits(service))},
    )


def _shared_limits(service: DesiredService) -> dict[str, float]:
    """Return the limits of a service that all nodes share, but those that are none."""
    limits = service.limits
    written = {name: getattr(limits, name) for name in SHARED_LIMITS if limits.scope == "cluster"}
    return {name: limit for name, limit in written.items() if limit}


def _take_out_loops(known: dict[str, Sequence[Backend]], loops: Loops) -> dict[str, tuple[Remark, ...]]:
    """Take those backends out of `known` that lead back to their service, and return them with the reason."""
    rejected: dict[str, tuple[Remark, ...]] = {}
    for name, backends in known.items():
        why = [(backend, loops.add(name, backend.address)) for backend in backends]
        if any(message for _, message in why):
            known[name] = [backend for backend, message in why if not message]
            rejected[name] = tuple(Remark(backend.id, message) for backend, message in why if message)
    return rejected


def configured_of(services: Mapping[str, Any], discovered: Sequence[str]) -> Configured:
    """Tell what the desired state itself says about backends, as far as overrides depend on it."""
    static = {
        name: {each["id"]: {"state": each["state"], "weight": each["weight"]} for each in service["backends"]}
        for name, service in services.items()
        if name not in discovered
    }
    return {**static, **dict.fromkeys(discovered)}
