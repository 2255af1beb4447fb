"""What one snapshot changes in another: the `changes` of the API, unchanged things left out."""

from __future__ import annotations

from collections.abc import Generator, Mapping

from dataplane.node.slices import SLICE
from schemas.changes import Compared, differences, listened
from schemas.replies import Change
from schemas.snapshot import Service

__all__ = ["change_steps"]


def change_steps(
    old: Mapping[str, Service], new: Mapping[str, Service]
) -> Generator[None, None, list[Change]]:
    """List the differences: services that go first, then the others in their order, each as `differences` has it.

    Yields after each SLICE of backends; the generator returns the list.
    """
    changes: list[Change] = []
    for name in [*(name for name in old if name not in new), *new]:
        found = differences(name, _compared(old.get(name)), _compared(new.get(name)))
        for count, change in enumerate(found):
            if change is not None:
                changes.append(change)
            if count % SLICE == 0:
                yield
    return changes


def _compared(service: Service | None) -> Compared | None:
    if service is None:
        return None
    listen = [one if isinstance(one, str) else one.written() for one in service.listen]
    options = service.model_dump(mode="json", exclude={"listen", "backends"})
    return Compared(listened(listen), options, {backend.id: backend for backend in service.backends})
