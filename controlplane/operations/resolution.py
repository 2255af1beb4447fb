"""What an lb.yaml comes to here and now: the same question for a plan and an apply, with a daemon and without.

What goes in is the lb.yaml, what discovery finds for it, what ran last where discovery knows nothing, the machine that
the data planes are on, and how many nodes share the limits of their cluster. There is no other way from an lb.yaml to a snapshot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from controlplane.core.compile import Compiled, compile_services
from controlplane.dataplanes import requests
from controlplane.dataplanes.fleet import Fleet
from controlplane.desired.document import Proposal
from controlplane.discovery.consul.discovery import ConsulDiscovery, Found
from controlplane.errors import RefusedError
from controlplane.operations.accepted import Accepted
from controlplane.operations.options import ApplyOptions
from controlplane.operations.rules import plan_report, refuse_loops
from schemas.snapshot import Backend

FIRST_LOOK_S: Final = 3.0
"""For all data planes to be found and looked at."""
_DRY_RUN_S: Final = 5.0
_FIRST_ANSWER_S: Final = 5.0
"""For Consul, which may need an election; nothing else can be changed meanwhile."""
_UNDIVIDED: Final = (
    "this node takes the limits of all nodes for its own, of {}: it has never known how many nodes there are; "
    "a daemon with cluster in its lb.yaml learns it from Consul (lb-control nodes)"
)
_ANY_GENERATION: Final = 2**63 - 1
"""For a dry run: the highest that there is, so that no data plane is ahead of it."""


def unserved(names: Iterable[str], doubts: Mapping[str, str]) -> list[dict[str, str]]:
    """Name the services that are asked for and not served, each with the reason, as `--json` prints it."""
    return [{"service": name, "why": doubts.get(name, "Consul has not answered")} for name in sorted(names)]


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
class Planned:
    """What a change would do."""

    compiled: Compiled
    """What should run."""
    found: Found
    report: dict[str, Any]
    """As `--json` prints it."""
    refusals: Sequence[RefusedError]
    """Of data planes that would say no."""


def not_as_asked(compiled: Compiled, found: Found, changed: frozenset[str]) -> list[dict[str, str]]:
    """Name what is asked for and not served: also by whom the backends of another question stand in."""
    stand_in = (changed & found.doubts.keys()) - found.backends.keys()
    doubts = dict(found.doubts)
    for name in stand_in.difference(compiled.waiting):
        doubts[name] += "; until then it goes on with the backends that it had"
    return unserved(stand_in.union(compiled.waiting), doubts)


def warnings_of(compiled: Compiled, found: Found, rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Say what is not served, as `not_as_asked` names it, what is served from memory, and what is not used."""
    said = []
    for each in rows:
        how = "" if each["service"] in compiled.waiting else " as asked"
        said.append(f"service {each['service']} is not served{how}: {each['why']}")
    named = {each["service"] for each in rows}
    before = "goes on with the backends that it had"
    doubts = [f"service {name} {before}: {why}" for name, why in found.doubts.items() if name not in named]
    return [*said, *doubts, *compiled.warnings()]


@dataclass(frozen=True, slots=True)
class Resolving:
    """Resolves for one fleet and one discovery."""

    fleet: Fleet
    discovering: ConsulDiscovery

    async def plan(self, proposal: Proposal, options: ApplyOptions, accepted: Accepted) -> Planned:
        """Ask discovery and every data plane what a change would come to; nothing changes."""
        await self.fleet.wait_looked(min(FIRST_LOOK_S, options.timeout_s / 3))
        ran = await accepted.services()
        patience_s = min(_FIRST_ANSWER_S, options.timeout_s / 2)
        found = await self.discovering.look(proposal.desired, patience_s, released=options.force)
        compiled = await self.compile(proposal, found.backends, ran, accepted.state.share)
        refuse_loops(compiled)
        # Of no generation's: one that a data plane got meanwhile is no reason to refuse the content.
        body = requests.encode(compiled.body(_ANY_GENERATION))
        answers = await self.fleet.dry_run(
            requests.put_snapshot(body, dry_run=True), min(_DRY_RUN_S, options.timeout_s / 2)
        )
        report = plan_report(answers, ran, compiled.services)
        changed = _asked_anew(accepted.state.document, proposal.document)
        rows = not_as_asked(compiled, found, changed)
        warnings = warnings_of(compiled, found, rows)
        if compiled.scoped and accepted.state.share is None:
            warnings.append(_UNDIVIDED.format(", ".join(sorted(compiled.scoped))))
        report |= {"unserved": rows, "warnings": warnings}
        refusals = [each for each in answers.values() if isinstance(each, RefusedError)]
        return Planned(compiled, found, report, refusals)

    async def compile(
        self,
        proposal: Proposal,
        discovered: Mapping[str, Sequence[Backend]],
        ran: Mapping[str, Any],
        nodes: int | None,
    ) -> Compiled:
        """Put together what is known; `ran` are the services of before, `nodes` those that share limits of the cluster."""
        asked = {name for name, each in proposal.desired.services.items() if each.discover is not None}
        if asked - discovered.keys() - ran.keys():
            # Our state directory is new, and discovery knows nothing: what runs goes on.
            ran = {**await self.fleet.services(), **ran}
        last = {name: service["backends"] for name, service in ran.items()}
        return await asyncio.to_thread(
            compile_services, proposal.desired, discovered, last, self.fleet.machine(), nodes or 1
        )
