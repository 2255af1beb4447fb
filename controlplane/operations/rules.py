"""The rules of taking a change, the same with a daemon and without: what is refused, kept, written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from controlplane.core.compile import Compiled, configured_of
from controlplane.core.merge import FIELDS, Override, put, surviving, words
from controlplane.core.plan import diff, join_changes, join_impacts, remaps_above
from controlplane.core.rollout import Target
from controlplane.dataplanes import requests
from controlplane.dataplanes.endpoint import result_row
from controlplane.dataplanes.fleet import Answers
from controlplane.dataplanes.pusher import Wish
from controlplane.errors import DataPlaneError, HeldBackError, InputError, StoreError, UnknownError
from controlplane.operations.options import ApplyOptions, Origin
from controlplane.store import KEPT_CHANGES, Entry, History, State, digest_of
from schemas.errors import format_path

_KEPT_RETRACTIONS: Final = 100


def accept(state: State, compiled: Compiled, document: dict[str, Any], generation: int) -> State:
    """Return the state after a change was taken; overrides that it contradicts end."""
    old = configured_of(state.services, state.discovered)
    new = configured_of(compiled.services, compiled.discovered)
    return replace(
        state,
        generation=generation,
        hash=compiled.hash,
        document=document,
        services=compiled.services,
        discovered=compiled.discovered,
        scoped=dict(compiled.scoped),
        overrides=surviving(state.overrides, old, new),
    )


def attributed(
    before: State, after: State, origin: Origin, when: str, *, file_digest: str | None = None
) -> State:
    """Note whether the watched file's word holds, or who has applied something else.

    Until the file changes that holds, and a daemon that starts later does not return to the file's older word.
    """
    document, mine = digest_of(after.document), replace(after, applied_by=None, applied_since=None)
    if file_digest is not None:
        return replace(mine, file_digest=file_digest, file_document=document)
    applied = origin.kind in {"apply", "rollback"} and before.file_digest is not None
    if not applied or after.document == before.document:
        return after
    if document == before.file_document:  # it says what the file says
        return mine
    return replace(after, applied_by=origin.by, applied_since=when)


def entry_of(before: State, after: State, origin: Origin, when: str) -> Entry:
    """Describe a generation for the history."""
    changes = diff(before.services, after.services)
    return Entry(
        generation=after.generation,
        hash=after.hash,
        when=when,
        by=origin.by,
        origin=origin.kind,
        document=digest_of(after.document),
        changes=changes[:KEPT_CHANGES],
        more=max(0, len(changes) - KEPT_CHANGES),
    )


def override(
    state: State, service: str, backend: str, fields: Mapping[str, Any], *, by: str, when: str
) -> State:
    """Take an operator's word about one backend in; it is compared with what the services of `state` say.

    UnknownError if there is no such service or backend.
    """
    known = state.services.get(service)
    if known is None:
        raise UnknownError(f"no service {service}; there are: {', '.join(sorted(state.services)) or 'none'}")
    found = next((each for each in known["backends"] if each["id"] == backend), None)
    if found is None:
        there = ", ".join(each["id"] for each in known["backends"][:20]) or "none"
        raise UnknownError(f"no backend {backend} in service {service}; there are: {there}")
    overrides = state.overrides
    retracted = [
        place for place in state.retracted if place[:2] != (service, backend) or place[2] not in fields
    ]
    for name in FIELDS:
        if name in fields:
            word = Override(service, backend, name, fields[name], by, when)
            overrides = put(overrides, word, configured=found[name])
            if word not in overrides:
                retracted.append(word.place())
    return replace(state, overrides=overrides, retracted=tuple(retracted[-_KEPT_RETRACTIONS:]))


def plan_report(answers: Answers, old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Join what the data planes' dry runs say; without any answer, the difference to what ran last."""
    planned = [answer for answer in answers.values() if not isinstance(answer, DataPlaneError)]
    return {
        "changes": join_changes(answer["changes"] for answer in planned) if planned else diff(old, new),
        "impact": join_impacts([answer["impact"] for answer in planned]),
        "dataplanes": [result_row(endpoint, answer, {}) for endpoint, answer in answers.items()],
    }


def refuse_if(refusals: Sequence[DataPlaneError], impact: Mapping[str, Any], options: ApplyOptions) -> None:
    """Stop a change that a data plane would refuse, or that would move too many sticky clients, with a HeldBackError."""
    if refusals:
        raise HeldBackError("nothing was changed\n" + "\n".join(f"{each.name}: {each}" for each in refusals))
    if options.max_remap is not None and (above := remaps_above(impact, options.max_remap)):
        shares = ", ".join(f"{service}: {share}" for service, share in above.items())
        raise HeldBackError(
            f"nothing was changed: {shares} of the sticky clients would move to another backend, "
            f"which is above --max-remap {options.max_remap * 100:.4g}%"
        )


def refuse_loops(compiled: Compiled) -> None:
    """Stop a change whose listed backends lead back into the balancer on this machine: elsewhere it may be right."""
    if compiled.loops:
        problems = [{"path": format_path(path), "message": message} for path, message in compiled.loops]
        raise InputError("", problems)


def wish_of(state: State) -> Wish:
    """Return what every data plane should run."""
    body = {"version": 1, "generation": state.generation, "hash": state.hash, "services": state.services}
    told = words(state.overrides, state.retracted, state.services)
    return Wish(Target(state.generation, state.hash), requests.encode(body), told)


def rollback_entry(known: History, current: str, generation: int | None) -> Entry:
    """Choose what to return to: a generation, or without one the newest whose lb.yaml differs from the current one, a digest.

    UnknownError if there is none; StoreError if the previous content may be in what cannot be read.
    """
    history = known.entries
    if generation is None:
        if known.unread:
            raise StoreError(
                "which content was the previous one is not known, so name a generation: "
                + "; ".join(known.unread)
            )
        found = next((each for each in reversed(history) if each.document != current), None)
        if found is None:
            raise UnknownError(
                "the history has nothing to return to: it has "
                + (f"one content, of generation {history[0].generation}" if history else "no generation")
                + "; what ran before was not applied by lb-control, so apply its file to return to it"
            )
        return found
    found = next((each for each in history if each.generation == generation), None)
    if found is None:
        span = f"{history[0].generation} to {history[-1].generation}" if history else "none"
        raise UnknownError(f"generation {generation} is not in the history, which has {span}")
    return found
