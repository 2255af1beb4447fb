"""The daemon's one writer: takes changes from file, Consul and operators, and tells the fleet.

Theory of operation:

1. A change is taken or refused as a whole, one at a time. Taken means: written down, then wished of the fleet.
2. What is wished is level-triggered (`push`): a data plane that is away gets it when it returns.
3. Every content has a generation of its own. When data planes turn out to run something newer than what is
   wished, the wish is raised above it, with growing pauses where that repeats itself (`core.contest`); if it is the
   same content, its generation is adopted. Neither is an entry of the history.
4. A killed daemon comes back to what it had written down: that is what was taken last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from controlplane import calls
from controlplane.acceptance import (
    ANY_GENERATION,
    ApplyOptions,
    Origin,
    accept,
    attributed,
    entry_of,
    now_text,
    override,
    plan_report,
    refuse_if,
    refuse_loops,
    result_row,
    rollback_entry,
)
from controlplane.core.compile import Compiled, compile_services
from controlplane.core.contest import Contest
from controlplane.core.merge import words
from controlplane.core.rollout import Running, Target, next_generation
from controlplane.discovering import Discovering
from controlplane.errors import ControlError, DataPlaneError, RefusedError, StoreError
from controlplane.fleet import Fleet
from controlplane.keeping import Keeping
from controlplane.proposal import Proposal
from controlplane.push import Wish
from controlplane.pushing import said_by
from controlplane.store import State, Store, digest_of

if TYPE_CHECKING:
    from schemas.desired import Desired
    from schemas.snapshot import Backend

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
    """See `plan_report`."""
    warnings: tuple[str, ...]


class Controller:
    """Decides what the fleet should run.

    Args:
        store: What outlives the process.
        make_fleet: Makes the fleet, given what to call when a data plane is ahead, and after any change.
        base: What relative paths are relative to in what an older version wrote down.
        on_event: Told of everything that somebody who watches might want to see.
        log: Told what an operator has to know and nobody may be looking at.
    """

    def __init__(
        self,
        store: Store,
        make_fleet: Callable[[Callable[[Running], None], Callable[[], None]], Fleet],
        *,
        base: Path,
        on_event: Callable[[dict[str, Any]], None],
        log: Callable[[str], None],
    ) -> None:
        self.state = State()
        self.fleet = make_fleet(self._on_ahead, self._on_change)
        self.discovering = Discovering(self._on_discovery, self._answers)
        self.keeping = Keeping(store, log)
        self.contest = Contest()
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

    async def start(self) -> None:
        """Take up what was written down, and wish it."""
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
        compiled = await self._compile(proposal)
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
        compiled = await self._compile(self._proposal)
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

    async def plan(self, proposal: Proposal) -> dict[str, Any]:
        """Tell what a change would do; changes nothing.

        Raises:
            ControlError: Consul does not tell the backends that it needs.
        """
        compiled = await self._compile(proposal, await self.discovering.look(proposal, _DRY_RUN_S))
        refuse_loops(compiled)
        call = calls.put_snapshot(calls.encode(compiled.body(ANY_GENERATION)), dry_run=True)
        return plan_report(await self.fleet.dry_run(call, _DRY_RUN_S), self.state.services, compiled.services)

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
            before = self._proposal
            self.discovering.follow(proposal)
            try:
                if options.force:
                    self.discovering.release()
                await self.discovering.wait_ready(min(_FIRST_ANSWER_S, options.timeout_s / 2))
                await self.fleet.wait_looked(min(_FIRST_LOOK_S, options.timeout_s))
                if self.state.document is None:  # what runs was started by other means
                    self.state = replace(self.state, services=await self.fleet.services())
                compiled = await self._compile(proposal)
                refuse_loops(compiled)
                generation = next_generation(
                    self.fleet.running(), compiled.hash, floor=(self.state.generation, self.state.hash)
                )
                # Of no generation's: one that a data plane got meanwhile is no reason to refuse the content.
                call = calls.put_snapshot(calls.encode(compiled.body(ANY_GENERATION)), dry_run=True)
                answers = await self.fleet.dry_run(call, min(_DRY_RUN_S, options.timeout_s / 2))
                planned = plan_report(answers, self.state.services, compiled.services)
                refusals = [error for _, _, error in answers if isinstance(error, RefusedError)]
                refuse_if(refusals, planned["impact"], options)
            except BaseException:
                if before is not None:
                    self.discovering.follow(before)
                raise
            self._proposal = proposal
            warnings = await self._keep(proposal, compiled, generation, origin, file_digest=file_digest)
            warnings += compiled.warnings()
            wish = self.fleet.wish
            assert wish is not None  # noqa: S101 - `_keep` has just wished it
            return Taken(wish, planned, tuple(warnings))

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
            "warnings": list(taken.warnings),
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
            running = self.state
            if running.document is None:  # the data planes run something of their own
                running = replace(running, services=await self.fleet.services())
            after = override(running, service, backend, fields, by=by, when=now_text())
            self.state = replace(after, services=self.state.services)
            warnings = await self.keeping.keep(self.state)
            self._wish()
            wish = self.fleet.wish
        if wish is None:
            call = calls.patch_backend(service, backend, fields)
            answers = await self.fleet.ask(call, timeout_s)
            rows = [result_row(each.endpoint, _failed(answer), {}) for each, answer in answers]
        else:
            rows = await self.fleet.settled(wish, deadline - time.monotonic())
        return {
            "service": service,
            "id": backend,
            "fields": dict(fields),
            "dataplanes": rows,
            "kept": wish is not None,
            "warnings": warnings,
        }

    async def history(self) -> dict[str, Any]:
        """Return every known generation, the oldest first, and what cannot be read."""
        return (await asyncio.to_thread(self._store.history)).report()

    async def snapshot(self) -> dict[str, Any]:
        """Return what should run; before anything was taken, what the newest data plane runs."""
        state = self.state
        services = state.services if state.document is not None else await self.fleet.services()
        return {"version": 1, "generation": state.generation, "hash": state.hash, "services": services}

    # --- parts of a change

    async def _compile(
        self, proposal: Proposal, discovered: Mapping[str, Sequence[Backend]] | None = None
    ) -> Compiled:
        queries, held = proposal.queries(), self.state.services
        if discovered is None:
            discovered = self.discovering.discovered()
        if queries.keys() - discovered.keys() - held.keys():
            # Our state directory is new, and Consul has not answered: what runs goes on.
            held = {**await self.fleet.services(), **held}
        last = {name: service["backends"] for name, service in held.items()}
        return await asyncio.to_thread(
            compile_services, proposal.desired, discovered, last, self.fleet.machine()
        )

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
        if file_digest is not None:
            after = replace(
                after,
                file_digest=file_digest,
                file_document=digest_of(proposal.document),
                applied_by=None,
                applied_since=None,
            )
        elif origin.kind in {"apply", "rollback"}:
            after = attributed(self.state, after, origin.by, now_text())
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
        state = self.state
        if state.document is None:
            return
        body = {"version": 1, "generation": state.generation, "hash": state.hash, "services": state.services}
        told = words(state.overrides, state.retracted, state.services)
        self.fleet.want(Wish(Target(state.generation, state.hash), calls.encode(body), told))


def _failed(answer: Mapping[str, Any] | DataPlaneError) -> DataPlaneError | None:
    return answer if isinstance(answer, DataPlaneError) else None
