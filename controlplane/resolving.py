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
from controlplane.discovering import Discovering, Found

if TYPE_CHECKING:
    from controlplane.fleet import Fleet
    from controlplane.proposal import Proposal
    from schemas.snapshot import Backend

__all__ = ["Resolved", "Resolving", "unserved"]


def unserved(compiled: Sequence[str], doubts: Mapping[str, str]) -> list[dict[str, str]]:
    """Name the services that are asked for and not served, each with the reason, as `--json` prints it."""
    return [
        {"service": name, "why": doubts.get(name, "Consul has not answered")} for name in sorted(compiled)
    ]


@dataclass(frozen=True, slots=True)
class Resolved:
    """What should run, and what is to be said of it."""

    compiled: Compiled
    found: Found

    def unserved(self) -> list[dict[str, str]]:
        """Name what is asked for and not served."""
        return unserved(self.compiled.waiting, self.found.doubts)

    def warnings(self) -> list[str]:
        """Say what is not served, what is served from memory, and what is not used."""
        doubts = [
            f"service {name} goes on with the backends that it had: {why}"
            for name, why in self.found.doubts.items()
            if name not in self.compiled.waiting
        ]
        return [
            *(f"service {each['service']} is not served: {each['why']}" for each in self.unserved()),
            *doubts,
            *self.compiled.warnings(),
        ]


class Resolving:
    """Resolves for one fleet and one discovery."""

    def __init__(self, fleet: Fleet, discovering: Discovering) -> None:
        self._fleet = fleet
        self._discovering = discovering

    async def resolve(
        self, proposal: Proposal, ran: Mapping[str, Any], timeout_s: float, *, released: bool
    ) -> Resolved:
        """Ask discovery, and put everything together; nothing changes.

        Args:
            proposal: What should be.
            ran: The services of the last snapshot, which stand in where discovery knows nothing.
            timeout_s: How long to wait for discovery.
            released: Believe discovery's word against its guard's.

        Raises:
            ControlError: Discovery cannot be asked in the way that the lb.yaml says.
        """
        found = await self._discovering.look(proposal, timeout_s, released=released)
        return Resolved(await self.compile(proposal, found.backends, ran), found)

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
