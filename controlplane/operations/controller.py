"""The one writer, of a daemon or of one command: takes changes from file, Consul and operators, and tells the fleet.

Theory of operation:

1. A change is taken or refused as a whole, one at a time. Taken means: written down, then wished of the fleet.
2. What is wished is level-triggered (`dataplanes.pusher`): a data plane that is away gets it when it returns.
3. Every content has a generation of its own. When data planes turn out to run something newer than what is
   wished, the wish is raised above it, with growing pauses where that repeats itself (`core.rollout.Contest`); if it is the
   same content, its generation is adopted. Neither is an entry of the history.
4. A killed daemon comes back to what it had written down: that is what was taken last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from controlplane.core.compile import Compiled
from controlplane.core.rollout import Contest, Running
from controlplane.dataplanes import requests
from controlplane.dataplanes.endpoint import result_row
from controlplane.dataplanes.fleet import Fleet
from controlplane.dataplanes.pusher import Wish
from controlplane.dataplanes.requests import said_by
from controlplane.desired.document import Proposal, Reader
from controlplane.discovery.consul.discovery import ConsulDiscovery
from controlplane.errors import ControlError
from controlplane.operations.accepted import Accepted, Keeping
from controlplane.operations.options import ApplyOptions, Origin, now_text
from controlplane.operations.resolution import FIRST_LOOK_S, Resolving, unserved
from controlplane.operations.rules import accept, attributed, override, refuse_if, wish_of
from schemas.desired import Desired

_RESUMED: Final = Origin("lb-control run", "resume")


class News:
    """What has happened by itself: of each kind one slot, for only the newest counts."""

    def __init__(self) -> None:
        self._ahead: Running | None = None
        self._discovered = False
        self._nodes: int | None = None
        self._any = asyncio.Event()

    def ahead(self, running: Running) -> None:
        """Note what a data plane runs that the wish cannot follow."""
        self._ahead = running
        self._any.set()

    def discovered(self) -> None:
        """Note that discovery has something new."""
        self._discovered = True
        self._any.set()

    def shared(self, nodes: int) -> None:
        """Note how many nodes share the limits of their cluster."""
        self._nodes = nodes
        self._any.set()

    async def wait(self) -> None:
        """Wait until there is some."""
        await self._any.wait()
        self._any.clear()

    def take(self) -> tuple[bool, int | None, Running | None]:
        """Return whether something was discovered, how many nodes there are, and what runs ahead; all slots are empty then."""
        found = self._discovered, self._nodes, self._ahead
        self._discovered, self._nodes, self._ahead = False, None, None
        return found


class Controller:
    """Decides what the fleet should run.

    Args:
        keeping: Reads and writes what outlives the process.
        make_fleet: Makes the fleet, given what to call when a data plane is ahead, and after any change.
        reader: Reads what was written down; relative paths in it, of an older version, start at the reader's folder.
        on_event: Told of everything that somebody who watches might want to see.
        log: Told what an operator has to know and nobody may be looking at.
        tell: Told what is waited for.
    """

    def __init__(
        self,
        keeping: Keeping,
        make_fleet: Callable[[Callable[[Running], None], Callable[[], None]], Fleet],
        *,
        reader: Reader,
        on_event: Callable[[dict[str, Any]], None],
        log: Callable[[str], None],
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.news = News()
        self.fleet = make_fleet(self.news.ahead, lambda: on_event({"type": "dataplanes"}))
        self.discovering = ConsulDiscovery(self.news.discovered, tell or log)
        self.accepted = Accepted(keeping, self.fleet, on_event, log)
        self.contest = Contest()
        self._resolving = Resolving(self.fleet, self.discovering)
        self.reader = reader
        self._log = log
        self.proposal: Proposal | None = None
        """What was taken last; None: nothing, or something that only another version of us understands."""
        self._writing = asyncio.Lock()

    @property
    def desired(self) -> Desired | None:
        """What that is on this node."""
        return None if self.proposal is None else self.proposal.desired

    # --- beginning and going on

    async def load(self) -> None:
        """Read what was written down; nothing is wished."""
        await self.accepted.load()
        self.discovering.restore(self.accepted.state.discovery)

    async def start(self) -> None:
        """Take up what was written down, and wish it."""
        await self.load()
        state = self.accepted.state
        if state.document is None:
            return
        try:
            proposal = await _checked(self.reader, state.document, state.generation)
            self.discovering.follow(proposal.desired)
        except ControlError as error:  # what ran was valid for another version of us
            self._log(f"goes on with the snapshot of before: {error}")
            self.accepted.wish()
            return
        self.proposal = proposal
        compiled = await self._known(proposal)
        if compiled.hash == state.hash:
            self.accepted.wish()
        else:  # another version of us resolves defaults otherwise, or the snapshot was lost
            await self._accept(proposal, compiled, state.generation + 1, _RESUMED)

    async def run(self) -> None:
        """Follow discovery and the generations of the fleet until cancelled."""
        while True:
            await self.news.wait()
            async with self._writing:
                discovered, nodes, ahead = self.news.take()
                if discovered or nodes is not None:
                    await self._recompile(nodes)
                if ahead is not None:
                    await self._raise_wish(ahead)

    async def _recompile(self, nodes: int | None) -> None:
        """Take what lb.yaml comes to now; `nodes` is how many there are, if that is news."""
        accepted, origin = self.accepted, Origin("consul", "discovery")
        if nodes is not None and nodes != accepted.state.share:
            origin = Origin(f"{nodes} {'node' if nodes == 1 else 'nodes'}", "cluster")
            accepted.state = replace(accepted.state, share=nodes)
            await accepted.keeping.keep(accepted.state)
        if self.proposal is None:
            return
        compiled = await self._known(self.proposal)
        if compiled.hash == accepted.state.hash:
            # The same backends, perhaps seen by other means: remembered with the next change.
            return
        generation = accepted.next_generation(compiled.hash)
        await self._accept(self.proposal, compiled, generation, origin)

    async def _raise_wish(self, ahead: Running) -> None:
        state = self.accepted.state
        if state.document is None:
            return
        generation = self.accepted.next_generation(state.hash)
        if generation == state.generation:
            return
        # The same content of a higher generation: that one is adopted.
        if (generation, state.hash) not in self.fleet.running():
            if not self.contest.may_push(ahead.by, time.monotonic()):
                return  # the next look asks again
            runs = f"generation {ahead.generation} of {said_by(ahead.by)}"
            self._log(f"a data plane runs {runs}: what was accepted here is pushed again as {generation}")
        await self.accepted.accept(replace(state, generation=generation), _RESUMED)

    # --- changes

    async def plan(self, proposal: Proposal, options: ApplyOptions) -> dict[str, Any]:
        """Tell what `apply` would do with these options, as `plan_report`, `unserved` and `warnings`; changes nothing."""
        return (await self._resolving.plan(proposal, options, self.accepted)).report

    async def take(
        self,
        proposal: Proposal,
        options: ApplyOptions,
        origin: Origin,
        *,
        file_digest: str | None = None,
    ) -> tuple[Wish, dict[str, Any]]:
        """Take a change, or raise a `ControlError` before it has touched anything; return the wish, and what `plan` returns.

        `file_digest` is the watched file's, if it comes from there.
        """
        accepted = self.accepted
        async with self._writing:
            planned = await self._resolving.plan(proposal, options, accepted)
            refuse_if(planned.refusals, planned.report["impact"], options)
            if accepted.state.document is None:
                accepted.state = replace(accepted.state, services=await self.fleet.services())
            compiled = planned.compiled
            generation = accepted.next_generation(compiled.hash)
            # From here on discovery is about this lb.yaml.
            self.discovering.follow(proposal.desired, planned.found)
            self.proposal = proposal
            if options.force:
                self.discovering.release()
            warnings = await self._accept(proposal, compiled, generation, origin, file_digest=file_digest)
            warnings += planned.report["warnings"]
            return wish_of(accepted.state), {**planned.report, "warnings": warnings}

    async def apply(self, proposal: Proposal, options: ApplyOptions, origin: Origin) -> dict[str, Any]:
        """Take a change, and wait until every data plane runs it."""
        deadline = time.monotonic() + options.timeout_s
        wish, planned = await self.take(proposal, options, origin)
        rows = await self.fleet.settled(wish, deadline - time.monotonic())
        return {
            "generation": wish.target.generation,
            "hash": wish.target.hash,
            "converged": all(row["result"] == "ok" for row in rows),
            **planned,
            "dataplanes": rows,
            "kept": True,
        }

    async def rollback(self, generation: int | None, options: ApplyOptions, by: str) -> dict[str, Any]:
        """Apply an earlier generation's lb.yaml."""
        entry, document = await self.accepted.earlier(generation)
        proposal = await _checked(self.reader, document, entry.generation)
        return {**await self.apply(proposal, options, Origin(by, "rollback")), "restored": entry.generation}

    async def patch(
        self, service: str, backend: str, fields: Mapping[str, Any], *, by: str, timeout_s: float
    ) -> dict[str, Any]:
        """Take an operator's override, and wait until every data plane has it; UnknownError if there is no such backend."""
        deadline = time.monotonic() + timeout_s
        async with self._writing:
            wish = self.fleet.wish
            running = self.accepted.state
            if wish is None:  # nobody has said what should run, or nobody keeps to it
                await self.fleet.wait_looked(min(FIRST_LOOK_S, timeout_s / 2))
                running = replace(running, services=await self.fleet.services(must=True))
            after = override(running, service, backend, fields, by=by, when=now_text())
            after = replace(after, services=self.accepted.state.services)
            rows: list[dict[str, Any]] = []
            if wish is None:
                call = requests.patch_backend(service, backend, fields)
                answers = await self.fleet.ask(call, timeout_s, everybody=True)
                rows = [result_row(endpoint, answer, {}) for endpoint, answer in answers.items()]
            warnings: list[str] = []
            if wish is not None or any(row["result"] == "ok" for row in rows):
                self.accepted.state = after
                warnings = await self.accepted.keeping.keep(after)
            if wish is not None:
                self.accepted.wish()
                wish = self.fleet.wish
        if wish is not None:
            rows = await self.fleet.settled(wish, deadline - time.monotonic())
        return {
            "service": service,
            "id": backend,
            "fields": dict(fields),
            "dataplanes": rows,
            "kept": wish is not None,
            "warnings": warnings,
        }

    def unserved(self) -> list[dict[str, str]]:
        """Name the services that are asked for and not served, with the reason of each."""
        state = self.accepted.state
        waiting = set(state.discovered) - set(state.services)
        return unserved(waiting, self.discovering.doubts())

    # --- parts of a change

    async def _known(self, proposal: Proposal) -> Compiled:
        """Return what an lb.yaml that is followed comes to."""
        discovered = self.discovering.discovered()
        state = self.accepted.state
        compiled = await self._resolving.compile(proposal, discovered, state.services, state.share)
        self.discovering.rejected = compiled.rejected
        return compiled

    async def _accept(
        self,
        proposal: Proposal,
        compiled: Compiled,
        generation: int,
        origin: Origin,
        *,
        file_digest: str | None = None,
    ) -> list[str]:
        """Make a change the accepted one."""
        self.discovering.rejected = compiled.rejected
        before = self.accepted.state
        after = accept(before, compiled, proposal.document, generation)
        after = replace(after, discovery=self.discovering.saved())
        after = attributed(before, after, origin, now_text(), file_digest=file_digest)
        return await self.accepted.accept(after, origin)


async def _checked(reader: Reader, document: dict[str, Any], generation: int) -> Proposal:
    """Check the lb.yaml of a generation, which another version of us may have written."""
    return await asyncio.to_thread(reader.document, document, f"generation {generation}")
