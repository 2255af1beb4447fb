"""The one writer, of a daemon or of one command: takes changes from file, Consul and operators, and tells the fleet.

Theory of operation:

1. A change is taken or refused as a whole, one at a time. Taken means: written down, then wished of the fleet.
2. What is wished is level-triggered (`dataplanes.pusher`): a data plane that is away gets it when it returns.
3. Every content has a generation of its own. When data planes turn out to run something newer than what is
   wished, the wish is raised above it, with growing pauses where that repeats itself (`core.contest`); if it is the
   same content, its generation is adopted. Neither is an entry of the history.
4. A killed daemon comes back to what it had written down: that is what was taken last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from controlplane.core.contest import Contest
from controlplane.core.rollout import Running, next_generation
from controlplane.dataplanes import requests
from controlplane.dataplanes.fleet import Fleet
from controlplane.dataplanes.pushed_by import said_by
from controlplane.desired.document import Proposal
from controlplane.errors import ControlError, RefusedError, StoreError
from controlplane.operations.discovery import Discovering
from controlplane.operations.options import ApplyOptions, Origin, now_text
from controlplane.operations.resolution import Resolving, unserved
from controlplane.operations.rules import (
    ANY_GENERATION,
    accept,
    attributed,
    entry_of,
    override,
    plan_report,
    refuse_if,
    refuse_loops,
    rollback_entry,
    wish_of,
)
from controlplane.operations.saving import Books, Keeping
from controlplane.store import State, digest_of

if TYPE_CHECKING:
    from controlplane.core.compile import Compiled
    from controlplane.dataplanes.pusher import Wish
    from controlplane.discovery.source import Found
    from controlplane.operations.resolution import Resolved
    from schemas.desired import Desired

__all__ = ["Controller", "Taken"]

_DRY_RUN_S: Final = 5.0
_FIRST_LOOK_S: Final = 3.0
_FIRST_ANSWER_S: Final = 5.0
"""For Consul, which may need an election; nothing else can be changed meanwhile."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A change that was taken."""

    wish: Wish
    planned: dict[str, Any]
    """What `Controller.plan` returns."""


class Controller:
    """Decides what the fleet should run.

    Args:
        store: What outlives the process.
        make_fleet: Makes the fleet, given what to call when a data plane is ahead, and after any change.
        base: What relative paths are relative to in what an older version wrote down.
        on_event: Told of everything that somebody who watches might want to see.
        log: Told what an operator has to know and nobody may be looking at.
        tell: Told what is waited for.
    """

    def __init__(
        self,
        store: Books,
        make_fleet: Callable[[Callable[[Running], None], Callable[[], None]], Fleet],
        *,
        base: Path,
        on_event: Callable[[dict[str, Any]], None],
        log: Callable[[str], None],
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.state = State()
        self.fleet = make_fleet(self._on_ahead, self._on_change)
        self.discovering = Discovering(self._on_discovery, self._answers, tell or log)
        self.keeping = Keeping(store, log)
        self.contest = Contest()
        self._resolving = Resolving(self.fleet, self.discovering)
        self.lost: str | None = None
        """Why what was written down could not be read at the start; None: it was."""
        self.healthy: frozenset[tuple[str, str]] = frozenset()
        """Service and id of the backends that pass the data planes' checks, as last seen."""
        self._store = store
        self._base = base
        self._on_event = on_event
        self._log = log
        self._proposal: Proposal | None = None
        self._writing = asyncio.Lock()
        self._work = asyncio.Event()
        self._ahead: Running | None = None
        self._discovered = False

    @property
    def desired(self) -> Desired | None:
        """What was taken last; None: nothing, or something that only another version of us understands."""
        return None if self._proposal is None else self._proposal.desired

    # --- beginning and going on

    async def load(self) -> None:
        """Read what was written down; nothing is wished."""
        try:
            self.state = await asyncio.to_thread(self._store.load)
        except StoreError as error:
            self.lost = (
                f"overrides and the last snapshot are unknown: {error}; say again which backends are to be drained, "
                "disabled or weighted otherwise"
            )
            self._log(self.lost)
            self.state = await asyncio.to_thread(self._store.recover)
        self.discovering.restore(self.state.discovery)

    async def start(self) -> None:
        """Take up what was written down, and wish it."""
        await self.load()
        if self.state.document is None:
            return
        source = f"generation {self.state.generation}"
        try:
            proposal = await asyncio.to_thread(Proposal.of_document, self.state.document, source, self._base)
            self.discovering.follow(proposal)
        except ControlError as error:  # what ran was valid for another version of us
            self._log(f"goes on with the snapshot of before: {error}")
            self._wish()
            return
        self._proposal = proposal
        compiled = await self._known(proposal)
        self.discovering.rejected = compiled.rejected
        if compiled.hash == self.state.hash:
            self._wish()
        else:  # another version of us resolves defaults otherwise, or the snapshot was lost
            await self._keep(
                proposal, compiled, self.state.generation + 1, Origin("lb-control run", "resume")
            )

    async def run(self) -> None:
        """Follow discovery and the generations of the fleet until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            async with self._writing:
                if self._discovered:
                    self._discovered = False
                    await self._rediscover()
                if (ahead := self._ahead) is not None:
                    self._ahead = None
                    await self._raise_wish(ahead)

    def _on_ahead(self, running: Running) -> None:
        self._ahead = running
        self._work.set()

    def _on_discovery(self) -> None:
        self._discovered = True
        self._work.set()

    def _on_change(self) -> None:
        self._on_event({"type": "dataplanes"})

    def _answers(self, service: str, backend: str) -> bool:
        return (service, backend) in self.healthy

    async def _rediscover(self) -> None:
        if self._proposal is None:
            return
        compiled = await self._known(self._proposal)
        self.discovering.rejected = compiled.rejected
        if compiled.hash == self.state.hash:
            # The same backends, perhaps seen by other means: remembered with the next change.
            return
        generation = next_generation(
            self.fleet.running(), compiled.hash, floor=(self.state.generation, self.state.hash)
        )
        await self._keep(self._proposal, compiled, generation, Origin("consul", "discovery"))

    async def _raise_wish(self, ahead: Running) -> None:
        state, running = self.state, self.fleet.running()
        if state.document is None:
            return
        generation = next_generation(running, state.hash, floor=(state.generation, state.hash))
        if generation == state.generation:
            return
        if (generation, state.hash) not in running:  # else it is the same content: its generation is adopted
            if not self.contest.may_push(ahead.by, time.monotonic()):
                return  # the next look asks again
            runs = f"generation {ahead.generation} of {said_by(ahead.by)}"
            self._log(f"a data plane runs {runs}: what was accepted here is pushed again as {generation}")
        await self._write(replace(state, generation=generation), Origin("lb-control run", "resume"))

    # --- changes

    async def plan(self, proposal: Proposal, options: ApplyOptions) -> dict[str, Any]:
        """Tell what `apply` would do with these options; changes nothing.

        Returns:
            What `plan_report` does; in `unserved`, services without any backend that is known; and `warnings`.

        Raises:
            ControlError: It would refuse the change, for another reason than a data plane's.
        """
        return (await self._planned(proposal, options))[1]

    async def _planned(
        self, proposal: Proposal, options: ApplyOptions
    ) -> tuple[Resolved, dict[str, Any], list[RefusedError]]:
        """Return what the change comes to, what it would do, and who says no."""
        await self.fleet.wait_looked(min(_FIRST_LOOK_S, options.timeout_s / 3))
        ran = self.state.services
        if self.state.document is None:  # what runs was started by other means
            ran = await self.fleet.services()
        patience_s = min(_FIRST_ANSWER_S, options.timeout_s / 2)
        resolved = await self._resolving.resolve(
            proposal, ran, patience_s, before=self.state.document, released=options.force
        )
        refuse_loops(resolved.compiled)
        # Of no generation's: one that a data plane got meanwhile is no reason to refuse the content.
        body = requests.encode(resolved.compiled.body(ANY_GENERATION))
        answers = await self.fleet.dry_run(
            requests.put_snapshot(body, dry_run=True), min(_DRY_RUN_S, options.timeout_s / 2)
        )
        report = plan_report(answers, ran, resolved.compiled.services)
        report |= {"unserved": resolved.unserved(), "warnings": resolved.warnings()}
        return resolved, report, [error for _, _, error in answers if isinstance(error, RefusedError)]

    async def take(
        self,
        proposal: Proposal,
        options: ApplyOptions,
        origin: Origin,
        *,
        file_digest: str | None = None,
    ) -> Taken:
        """Take a change, or refuse it before it has touched anything.

        Args:
            proposal: What should be.
            options: How careful to be.
            origin: Who wants it.
            file_digest: Of the watched file, if it comes from there.

        Raises:
            ControlError: It was refused.
        """
        async with self._writing:
            resolved, planned, refusals = await self._planned(proposal, options)
            refuse_if(refusals, planned["impact"], options)
            if self.state.document is None:
                self.state = replace(self.state, services=await self.fleet.services())
            compiled = resolved.compiled
            generation = next_generation(
                self.fleet.running(), compiled.hash, floor=(self.state.generation, self.state.hash)
            )
            self._follow(proposal, resolved.found, released=options.force)
            kept = await self._keep(proposal, compiled, generation, origin, file_digest=file_digest)
            return Taken(wish_of(self.state), {**planned, "warnings": [*kept, *planned["warnings"]]})

    def _follow(self, proposal: Proposal, found: Found, *, released: bool) -> None:
        """Let discovery be about this lb.yaml from now on."""
        self.discovering.follow(proposal, found)
        self._proposal = proposal
        if released:
            self.discovering.release()

    async def apply(self, proposal: Proposal, options: ApplyOptions, origin: Origin) -> dict[str, Any]:
        """Take a change, and wait until every data plane runs it."""
        deadline = time.monotonic() + options.timeout_s
        taken = await self.take(proposal, options, origin)
        rows = await self.fleet.settled(taken.wish, deadline - time.monotonic())
        return {
            "generation": taken.wish.target.generation,
            "hash": taken.wish.target.hash,
            "converged": all(row["result"] == "ok" for row in rows),
            **taken.planned,
            "dataplanes": rows,
            "kept": True,
        }

    async def rollback(self, generation: int | None, options: ApplyOptions, by: str) -> dict[str, Any]:
        """Apply an earlier generation's lb.yaml."""
        history = await asyncio.to_thread(self._store.history)
        entry = rollback_entry(history, digest_of(self.state.document), generation)
        document = await asyncio.to_thread(self._store.document, entry.document)
        source = f"generation {entry.generation}"
        proposal = await asyncio.to_thread(Proposal.of_document, document, source, self._base)
        return {**await self.apply(proposal, options, Origin(by, "rollback")), "restored": entry.generation}

    async def patch(
        self, service: str, backend: str, fields: Mapping[str, Any], *, by: str, timeout_s: float
    ) -> dict[str, Any]:
        """Take an operator's override, and wait until every data plane has it.

        Raises:
            UnknownError: There is no such service or backend.
        """
        deadline = time.monotonic() + timeout_s
        async with self._writing:
            wish = self.fleet.wish
            running = self.state
            if wish is None:  # nobody has said what should run, or nobody keeps to it
                await self.fleet.wait_looked(min(_FIRST_LOOK_S, timeout_s / 2))
                running = replace(running, services=await self.fleet.services(must=True))
            after = override(running, service, backend, fields, by=by, when=now_text())
            after = replace(after, services=self.state.services)
            rows: list[dict[str, Any]] = []
            if wish is None:
                rows = await self.fleet.tell(requests.patch_backend(service, backend, fields), timeout_s)
            warnings: list[str] = []
            if wish is not None or any(row["result"] == "ok" for row in rows):
                self.state = after
                warnings = await self.keeping.keep(after)
            if wish is not None:
                self._wish()
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
        waiting = set(self.state.discovered) - set(self.state.services)
        return unserved(tuple(waiting), self.discovering.doubts())

    async def history(self) -> dict[str, Any]:
        """Return every known generation, the oldest first, and what cannot be read."""
        return (await asyncio.to_thread(self._store.history)).report()

    async def snapshot(self) -> dict[str, Any]:
        """Return what should run; before anything was taken, what the newest data plane runs."""
        state = self.state
        services = state.services if state.document is not None else await self.fleet.services()
        return {"version": 1, "generation": state.generation, "hash": state.hash, "services": services}

    # --- parts of a change

    async def _known(self, proposal: Proposal) -> Compiled:
        """Return what an lb.yaml that is followed comes to."""
        return await self._resolving.compile(proposal, self.discovering.discovered(), self.state.services)

    async def _keep(
        self,
        proposal: Proposal,
        compiled: Compiled,
        generation: int,
        origin: Origin,
        *,
        file_digest: str | None = None,
    ) -> list[str]:
        """Write a change down, and wish it."""
        self.discovering.rejected = compiled.rejected
        after = replace(
            accept(self.state, compiled, proposal.document, generation), discovery=self.discovering.saved()
        )
        after = attributed(self.state, after, origin, now_text(), file_digest=file_digest)
        return await self._write(after, origin)

    async def _write(self, after: State, origin: Origin) -> list[str]:
        before, self.state = self.state, after
        again = origin.kind == "resume" and after.hash == before.hash
        entry = None if again else entry_of(before, after, origin, now_text())
        warnings = await self.keeping.keep(after, entry, after.document)
        self._wish()
        what = {"generation": after.generation, "hash": after.hash, "by": origin.by}
        self._on_event({"type": "generation", **what})
        return warnings

    def _wish(self) -> None:
        if self.state.document is not None:
            self.fleet.want(wish_of(self.state))
