"""Desired state and discovery in, one complete snapshot out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.core.merge import Configured
from schemas.desired import Desired, resolve
from schemas.snapshot import Backend, digest

__all__ = ["Compiled", "compile_services", "configured_of"]


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

    def body(self, generation: int) -> dict[str, Any]:
        """Return the snapshot that is pushed."""
        return {"version": 1, "generation": generation, "hash": self.hash, "services": self.services}


def compile_services(
    desired: Desired,
    discovered: Mapping[str, Sequence[Backend]],
    held: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Compiled:
    """Resolve discovery.

    Args:
        desired: The checked lb.yaml.
        discovered: What discovery knows, by service; a service may be known to have no backends.
        held: What ran last, by service, in the JSON form of backends: it stands in where discovery has not
            answered yet, so that a start without Consul keeps everybody served.

    Returns:
        Services of which nothing is known are left out: a listener without a backend would only refuse.
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
    services = resolve(desired.model_copy(update={"services": ready}), known)
    return Compiled(
        services={name: service.model_dump(mode="json") for name, service in services.items()},
        hash=digest(services),
        discovered=named,
        waiting=waiting,
    )


def configured_of(services: Mapping[str, Any], discovered: Sequence[str]) -> Configured:
    """Tell what the desired state itself says about backends, as far as overrides depend on it."""
    static = {
        name: {each["id"]: {"state": each["state"], "weight": each["weight"]} for each in service["backends"]}
        for name, service in services.items()
        if name not in discovered
    }
    return {**static, **dict.fromkeys(discovered)}
