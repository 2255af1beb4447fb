"""Services of a running data plane that share one listener, for tests that share one process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.dataplane.net.through import QUIET, Through
from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort

_numbers = itertools.count(1)


class Shared:
    """Several services of one listener.

    Args:
        plane: Which runs nothing else from now on.
        address: Of the listener.
        services: Options by a word, which their names end with; those of `QUIET` where nothing else is said.
    """

    def __init__(self, plane: DataPlane, address: str, services: Mapping[str, Mapping[str, Any]]) -> None:
        self.address = address
        self._plane = plane
        prefix = f"shared-{next(_numbers)}-"
        self.services = {word: Through(plane, prefix + word, address) for word in services}
        """By their words."""
        plane.put_snapshot(
            {prefix + word: {"listen": address, **QUIET, **options} for word, options in services.items()}
        )

    def closed(self) -> dict[str, int]:
        """Return the close reasons of all services, added up."""
        total: dict[str, int] = {}
        for service in self.services.values():
            for reason, count in service.status()["totals"]["closed"].items():
                total[reason] = total.get(reason, 0) + count
        return total

    def wait_closed(self, **reasons: int) -> None:
        """Return once exactly these have been counted, over all services."""
        self._plane.wait_status(lambda _: self.closed() == reasons)


@contextmanager
def shared(plane: DataPlane, **services: Mapping[str, Any]) -> Iterator[Shared]:
    """Run these services on one listener, instead of all others."""
    with HeldPort() as port:
        try:
            yield Shared(plane, port.address, services)
        finally:
            plane.put_snapshot({})
