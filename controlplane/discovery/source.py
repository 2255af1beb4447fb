"""What every kind of discovery is to those who need backends: Consul today, and what comes beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from schemas.desired import Desired
    from schemas.snapshot import Backend

__all__ = ["Found", "Source"]


@dataclass(frozen=True, slots=True)
class Found:
    """What discovery says of one lb.yaml."""

    backends: Mapping[str, Sequence[Backend]] = field(default_factory=dict)
    """By service; one of which nothing is known is missing."""
    doubts: Mapping[str, str] = field(default_factory=dict)
    """By service: why nothing is known of it, or something else than the source shows."""
    saved: Mapping[str, Any] = field(default_factory=dict)
    """What `restore` takes, so that whoever follows the lb.yaml next begins with it."""


class Source(Protocol):
    """One kind of discovery, for all services that ask it. What it knew last holds, whatever happens to it.

    Its maker hands it two calls: `on_change`, after `discovered` has changed, and `answers`, which tells whether a
    service's backend passes the data planes' own checks.
    """

    def follow(self, desired: Desired) -> None:
        """Find what the services of this lb.yaml ask for, and nothing else, from now on.

        Raises:
            ControlError: It cannot be asked for; nothing has changed.
        """

    async def look(self, desired: Desired, timeout_s: float, *, released: bool) -> Found:
        """Find what `follow` would, with the same memory and the same guard; nothing changes.

        Args:
            desired: The lb.yaml.
            timeout_s: How long to wait at most.
            released: Believe the source's word against the guard's.

        Raises:
            ControlError: It cannot be asked for.
        """

    def place(self, desired: Desired) -> str:
        """Name who is asked, for whoever waits: `Consul at http://127.0.0.1:8500`."""

    def discovered(self) -> Mapping[str, Sequence[Backend]]:
        """Return the last known good backends by service, sorted by id; services without any yet are missing."""

    def doubts(self) -> Mapping[str, str]:
        """Return, by service, why nothing is known of it, or something else than the source shows."""

    def release(self) -> None:
        """Let what the guard holds go."""

    def saved(self) -> dict[str, Any]:
        """Return what `restore` takes: JSON, without secrets."""

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Begin with what `saved` returned in an earlier life, as far as it still matters; never raises for it."""

    def status(self) -> list[dict[str, Any]]:
        """Return how it fares, a row for each question: at least `name`, `services`, `state`, `counts`, `rejected`."""

    async def run(self) -> None:
        """Find until cancelled; leaves no connection behind."""
