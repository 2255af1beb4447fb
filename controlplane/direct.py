"""Commands without a daemon: straight to the data planes, with the history in the state directory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
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
from controlplane.blocking import BlockingClient, ask_all
from controlplane.core.merge import words
from controlplane.core.report import Seen, node_status
from controlplane.core.rollout import next_generation
from controlplane.errors import GoneError, PlaceError, StoreError
from controlplane.fanout import LOOK_S, Fanout, asking
from controlplane.proposal import Proposal
from controlplane.store import State, Store, digest_of
from schemas.loops import ANYWHERE
from schemas.machine import HERE

if TYPE_CHECKING:
    from controlplane.core.compile import Compiled
    from schemas.loops import Machine
    from schemas.snapshot import Backend

__all__ = ["Direct"]

_PATIENCE_S: Final = 1.0
"""After which it is said what is waited for."""


class Direct:
    """The way to the data planes when no daemon runs.

    Args:
        clients: Makes a client for each data plane; raises `PlaceError` if there is none.
        store: The history.
        by: Who gives the commands.
        tell: Told what is waited for, if that takes longer than somebody expects.
        draining: Makes a client for each process that has been a data plane, and drains.
    """

    def __init__(
        self,
        clients: Callable[[], Sequence[BlockingClient]],
        store: Store,
        by: str,
        tell: Callable[[str], None] = lambda _: None,
        draining: Callable[[], Sequence[BlockingClient]] = tuple,
    ) -> None:
        self._find = clients
        self._store = store
        self._by = by
        self._tell = tell
        self._draining = draining

    def plan(self, proposal: Proposal, options: ApplyOptions) -> dict[str, Any]:
        """Ask every data plane what would change; without one, compare with what was applied last."""
        state = self._load(self._tell)
        compiled = self._compile(proposal, options)
        try:
            clients = self._find()
        except PlaceError:
            clients = ()
        body = calls.encode(compiled.body(ANY_GENERATION))
        question = asking(calls.put_snapshot(body, dry_run=True))
        outcomes = ask_all(clients, question, timeout_s=min(LOOK_S, options.timeout_s))
        answers = [(each.endpoint, each.answer, each.error) for each in outcomes]
        return plan_report(answers, state.services, compiled.services)

    def apply(self, proposal: Proposal, options: ApplyOptions) -> dict[str, Any]:
        """Push to every data plane, each all or nothing, and wait until all run it."""
        compiled = self._compile(proposal, options)
        with self._writing(options.timeout_s) as (state, warnings):
            report = self._apply(compiled, proposal, options, state, Origin(self._by, "apply"))
            return {**report, "warnings": [*warnings, *report["warnings"]]}

    def rollback(self, generation: int | None, options: ApplyOptions) -> dict[str, Any]:
        """Apply an earlier generation's lb.yaml."""
        with self._writing(options.timeout_s) as (state, warnings):
            entry = rollback_entry(self._store.history(), digest_of(state.document), generation)
            document = self._store.document(entry.document)
            proposal = Proposal.of_document(document, f"generation {entry.generation}", Path())
            compiled = self._compile(proposal, options)
            report = self._apply(compiled, proposal, options, state, Origin(self._by, "rollback"))
            return {
                **report,
                "restored": entry.generation,
                "warnings": [*warnings, *report["warnings"]],
            }

    def _apply(
        self, compiled: Compiled, proposal: Proposal, options: ApplyOptions, state: State, origin: Origin
    ) -> dict[str, Any]:
        clients = self._find()
        if state.document is None:  # the first apply: what runs was started by other means
            state = replace(state, services=_running(clients)["services"])
        fanout = Fanout(clients, options)
        generation = next_generation(fanout.look(), compiled.hash, floor=(state.generation, state.hash))
        body = calls.encode(compiled.body(generation))
        planned = fanout.dry_run(body, state.services, compiled.services)
        refuse_if(fanout.refusals(), planned["impact"], options)

        after = accept(state, compiled, proposal.document, generation)
        after = attributed(state, after, origin.by, now_text())
        fanout.push(body, words(after.overrides, after.retracted, after.services))
        rows = fanout.rows()
        return {
            "generation": generation,
            "hash": compiled.hash,
            "converged": fanout.succeeded() == len(rows),
            **planned,
            "dataplanes": rows,
            "warnings": [
                *(self._keep(state, after, origin) if fanout.succeeded() else []),
                *compiled.warnings(),
            ],
        }

    def _compile(self, proposal: Proposal, options: ApplyOptions) -> Compiled:
        try:
            machine = ANYWHERE if any(each.endpoint.is_url for each in self._find()) else HERE
        except PlaceError:
            machine = HERE
        compiled = _compiled(proposal, machine, options.timeout_s, self._tell)
        refuse_loops(compiled)
        return compiled

    def _keep(self, before: State, after: State, origin: Origin) -> list[str]:
        """Write down what was applied; that this fails does not undo it."""
        if after == before:
            return []
        try:
            self._store.record(entry_of(before, after, origin, now_text()), after.document or {})
            self._store.save(after)
        except StoreError as error:
            return [f"applied, but not written to the history: {error}"]
        return []

    def patch(self, service: str, backend: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Override fields of a backend on every data plane."""
        with self._writing(LOOK_S) as (state, warnings):
            clients = self._find()
            # A data plane may run something that this history never saw, such as its own --config.
            running = replace(state, services=_running(clients)["services"])
            after = override(running, service, backend, fields, by=self._by, when=now_text())
            question = asking(calls.patch_backend(service, backend, fields))
            outcomes = ask_all(clients, question, timeout_s=LOOK_S)
            if any(each.error is None for each in outcomes):
                try:
                    self._store.save(replace(after, services=state.services))
                except StoreError as error:
                    warnings.append(f"done, but not written down, so a restart forgets it: {error}")
            return {
                "service": service,
                "id": backend,
                "fields": dict(fields),
                "dataplanes": [result_row(each.endpoint, each.error, {}) for each in outcomes],
                "kept": False,
                "warnings": warnings,
            }

    def status(self) -> dict[str, Any]:
        """Ask every data plane, and whatever has been one and drains, now."""
        draining = self._draining()
        try:
            clients = self._find()
        except PlaceError:
            if not draining:
                raise
            clients = ()
        question = asking(calls.get("/v1/status"))
        outcomes = ask_all([*clients, *draining], question, timeout_s=LOOK_S)
        seen = [
            Seen(
                name=each.endpoint.name,
                socket=each.endpoint.location,
                reachable=each.error is None,
                error=None if each.error is None else str(each.error),
                gone_since=each.error.since if isinstance(each.error, GoneError) else None,
                status=each.answer or {},
                draining=number >= len(clients),
            )
            for number, each in enumerate(outcomes)
        ]
        state = self._load(self._tell)
        return node_status(seen, state.overrides, configured=state.services)

    def snapshot(self) -> dict[str, Any]:
        """Return what the newest data plane runs."""
        return _running(self._find())

    def history(self) -> dict[str, Any]:
        """Read the state directory."""
        return self._store.history().report()

    @contextlib.contextmanager
    def _writing(self, timeout_s: float) -> Iterator[tuple[State, list[str]]]:
        """Be the one writer; a state directory that cannot be used is no reason to leave clients unserved."""
        warnings: list[str] = []
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._store.writer(timeout_s=timeout_s))
            except StoreError as error:
                warnings.append(f"nothing is written down: {error}")
            yield self._load(warnings.append), warnings

    def _load(self, warn: Callable[[str], None]) -> State:
        try:
            return self._store.load()
        except StoreError as error:
            warn(f"overrides and the last snapshot are unknown: {error}")
            return self._store.recover()


def _compiled(
    proposal: Proposal, machine: Machine, timeout_s: float, tell: Callable[[str], None]
) -> Compiled:
    from controlplane.core.compile import compile_services  # noqa: PLC0415 - pydantic, only where it is needed

    queries = proposal.queries()
    if not queries:
        return compile_services(proposal.desired, {}, {}, machine)
    import asyncio  # noqa: PLC0415 - only discovery needs a loop

    from controlplane.sources.consul import resolve_once  # noqa: PLC0415 - nothing needs Consul otherwise
    from controlplane.sources.consul_config import settings_of  # noqa: PLC0415 - the same

    desired = proposal.desired
    address = settings_of(desired.consul).address()

    async def found() -> Mapping[str, Sequence[Backend]]:
        asyncio.get_running_loop().call_later(_PATIENCE_S, tell, f"waiting for Consul at {address}")
        return await resolve_once(
            desired.consul,
            queries,
            timeout_s,
            allow_empty=desired.guard.allow_empty,
        )

    return compile_services(desired, asyncio.run(found()), {}, machine)


def _running(clients: Sequence[BlockingClient]) -> dict[str, Any]:
    outcomes = ask_all(clients, asking(calls.get("/v1/snapshot")), timeout_s=LOOK_S)
    answers = [each.answer for each in outcomes if each.answer is not None]
    if not answers:
        failed = "; ".join(f"{each.endpoint.name}: {each.error}" for each in outcomes)
        raise PlaceError(f"no data plane answers: {failed}")
    return max(answers, key=lambda answer: int(answer["generation"]))
