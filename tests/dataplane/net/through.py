"""A service of a running data plane, for tests that share one process."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort

QUIET: dict[str, Any] = {
    "pool": {"mode": "off"},
    "health": {"active": {"type": "none"}, "passive": {"failures": 0}},
}
"""Options with which only clients cause connections to a backend."""
_numbers = itertools.count(1)


class Through:
    """One service with one listener."""

    def __init__(self, plane: DataPlane, name: str, address: str) -> None:
        self.plane = plane
        self.name = name
        self.address = address
        self.options: dict[str, Any] = {}

    def configure(self, *backends: object, **options: Any) -> dict[str, Any]:
        """Put a snapshot with this service alone; return the answer.

        Args:
            backends: Addresses, or what a snapshot takes for a backend.
            options: Of the service; those of `QUIET` where nothing else is said.
        """
        self.options = {"listen": self.address, "backends": list(backends), **QUIET, **options}
        return self.plane.put_snapshot({self.name: self.options})

    def status(self) -> dict[str, Any]:
        """Return the service's part of the status."""
        status: dict[str, Any] = self.plane.status()["services"][self.name]
        return status

    def backend(self, backend_id: str) -> dict[str, Any]:
        """Return a backend's part of the status."""
        return self.plane.backend(self.name, backend_id)

    def wait(self, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Return the service's first status for which `holds`."""
        status = self.plane.wait_status(lambda now: holds(now["services"][self.name]))
        service: dict[str, Any] = status["services"][self.name]
        return service

    def wait_closed(self, **reasons: int) -> None:
        """Return once exactly these close reasons have been counted."""
        self.wait(lambda now: now["totals"]["closed"] == reasons)

    def wait_health(self, **states: str) -> None:
        """Return once the named backends are in these states."""

        def holds(now: Mapping[str, Any]) -> bool:
            found = {backend["id"]: backend["health"]["state"] for backend in now["backends"]}
            return states.items() <= found.items()

        self.wait(holds)


@contextmanager
def through(plane: DataPlane, *backends: object, **options: Any) -> Iterator[Through]:
    """Run one service, instead of all others of `plane`, with a name that no test had before."""
    with HeldPort() as port:
        service = Through(plane, f"s{next(_numbers)}", port.address)
        service.configure(*backends, **options)
        try:
            yield service
        finally:
            plane.put_snapshot({})
