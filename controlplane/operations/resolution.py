"""What an lb.yaml comes to here and now: the same question for a plan and an apply, with a daemon and without.

What goes in is the lb.yaml, what discovery finds for it, what ran last where discovery knows nothing, and the machine that
the data planes are on. There is no other way from an lb.yaml to a snapshot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from controlplane.core.compile import Compiled, compile_services
from controlplane.discovery.source import Found
from controlplane.operations.discovery import Discovering

if TYPE_CHECKING:
    from controlplane.dataplanes.fleet import Fleet
    from controlplane.desired.document import Proposal
    from schemas.snapshot import Backend

__all__ = ["Resolved", "Resolving", "unserved"]


def unserved(compiled: Sequence[str], doubts: Mapping[str, str]) -> list[dict[str, str]]:
    """Name the services that are asked for and not served, each with the reason, as `--json` prints it."""
    return [
        {"service": name, "why": doubts.get(name, "Consul has not answered")} for name in sorted(compiled)
    ]


def _asked_anew(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> frozenset[str]:
    """Return the services for which the second lb.yaml asks something else than the first."""
    if before is None:
        return frozenset()
    known = _questions(before)
    return frozenset(name for name, question in _questions(after).items() if known.get(name) != question)


def _questions(document: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    datacenter = (document.get("consul") or {}).get("datacenter")
    return {name: (service.get("discover"), datacenter) for name, service in document["services"].items()}


@dataclass(frozen=True, slots=True)
class Resolved:
    """What should run, and what is to be said of it."""

    compiled: Compiled
    found: Found
    changed: frozenset[str] = frozenset()
    """Services that ask discovery for something else than what ran did."""

    def unserved(self) -> list[dict[str, str]]:
        """Name what is asked for and not served: also by whom the backends of another question stand in."""
        stand_in = (self.changed & self.found.doubts.keys()) - self.found.backends.keys()
        doubts = dict(self.found.doubts)
        for name in stand_in.difference(self.compiled.waiting):
            doubts[name] += "; until then it goes on with the backends that it had"
        return unserved(tuple(stand_in.union(self.compiled.waiting)), doubts)

    def warnings(self) -> list[str]:
        """Say what is not served, what is served from memory, and what is not used."""
        rows = self.unserved()
        named = {each["service"] for each in rows}
        doubts = [
            f"service {name} goes on with the backends that it had: {why}"
            for name, why in self.found.doubts.items()
            if name not in named
        ]
        return [
            *(
                f"service {each['service']} is not served"
                f"{'' if each['service'] in self.compiled.waiting else ' as asked'}: {each['why']}"
                for each in rows
            ),
            *doubts,
            *self.compiled.warnings(),
        ]


class Resolving:
    """Resolves for one fleet and one discovery."""

    def __init__(self, fleet: Fleet, discovering: Discovering) -> None:
        self._fleet = fleet
        self._discovering = discovering

    async def resolve(
        self,
        proposal: Proposal,
        ran: Mapping[str, Any],
        timeout_s: float,
        *,
        before: Mapping[str, Any] | None,
        released: bool,
    ) -> Resolved:
        """Ask discovery, and put everything together; nothing changes.

        Args:
            proposal: What should be.
            ran: The services of the last snapshot, which stand in where discovery knows nothing.
            timeout_s: How long to wait for discovery.
            before: The lb.yaml of the last snapshot; None: unknown.
            released: Believe discovery's word against its guard's.

        Raises:
            ControlError: Discovery cannot be asked in the way that the lb.yaml says.
        """
        found = await self._discovering.look(proposal, timeout_s, released=released)
        compiled = await self.compile(proposal, found.backends, ran)
        return Resolved(compiled, found, _asked_anew(before, proposal.document))

    async def compile(
        self, proposal: Proposal, discovered: Mapping[str, Sequence[Backend]], ran: Mapping[str, Any]
    ) -> Compiled:
        """Put together what is known."""
        if proposal.queries().keys() - discovered.keys() - ran.keys():
            # Our state directory is new, and discovery knows nothing: what runs goes on.
            ran = {**await self._fleet.services(), **ran}
        last = {name: service["backends"] for name, service in ran.items()}
        return await asyncio.to_thread(
            compile_services, proposal.desired, discovered, last, self._fleet.machine()
        )
