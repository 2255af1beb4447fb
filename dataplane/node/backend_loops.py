"""Which backends lead back into the balancer, on this machine and with what names resolve to (schemas.loops)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from schemas.loops import Loops

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dataplane.core.spec import BackendSpec
    from schemas.loops import Machine

__all__ = ["Served", "find_loops"]

SLICE: Final = 250

Served = tuple[str, "Iterable[str]", "Iterable[BackendSpec]"]
"""The name of a service, its listeners and its backends."""


async def find_loops(
    services: Iterable[Served], found: Mapping[str, Sequence[str]], machine: Machine
) -> dict[str, dict[str, dict[str, str]]]:
    """Judge all backends, letting the loop have its turn in between.

    What is configured as an address comes before what a name resolves to: the name is refused if both close a circle.

    Args:
        services: All that listen.
        found: By configured address: what the names among them resolve to, as addresses.
        machine: Where this runs.

    Returns:
        By service and backend id: the addresses that lead back, and why.
    """
    served = [(name, tuple(listen), tuple(backends)) for name, listen, backends in services]
    loops = Loops({name: listen for name, listen, _ in served}, machine)
    refused: dict[str, dict[str, dict[str, str]]] = {}
    for named in (False, True):
        for name, _, backends in served:
            for count, backend in enumerate(backends, 1):
                if (backend.address in found) is named:
                    for address in found.get(backend.address, (backend.address,)):
                        if why := loops.add(name, address):
                            refused.setdefault(name, {}).setdefault(backend.id, {})[address] = why
                if count % SLICE == 0:
                    await asyncio.sleep(0)
    return refused
