"""What a supervisor and its workers send each other: services in slices."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from dataplane.core.balance.sticky_table import StickyTable
from dataplane.core.spec import BackendSpec, OperatorState, ServiceSpec
from dataplane.telemetry.connection_log import RecordingOptions

INBOX: Final = "inbox"
"""What stands for an address where an inbox is lent instead of a listening socket; no address looks like it."""
SLICE: Final = 250
"""Backends that are unpickled between two turns of the loop: a fifth of a millisecond."""

Loops = Mapping[str, Mapping[str, str]]
"""Backends that lead back into the balancer, by id: the addresses that do, and why."""
Columns = dict[object, int]
"""By service name, or (service name, backend id): the column of the shared counters."""
Verdict = tuple[str, str, str, str, bool, bool]
"""Of a backend: service, id, state, cause, whether it is reachable, and whether the last check passed."""
Word = tuple[str, OperatorState, int]
"""Of an operator about a backend: its id, and the operator state and the weight that it is to have."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What each worker is started with; the same for all."""

    name: str
    runtime_dir: Path
    recording: RecordingOptions
    log_format: str
    affinity: bool


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a worker is told first; the memory of the shared counters comes with it."""

    index: int
    row: int
    """Of the shared counters."""
    rows: int
    settings: WorkerSettings


class Running(NamedTuple):
    """A service as it runs."""

    options: ServiceSpec
    """With whatever backends."""
    backends: Mapping[str, BackendSpec]
    """By id, in order."""


class PackedService(NamedTuple):
    """A service as it travels: all of it, or what is other than it runs."""

    name: str
    options: bytes | None
    """The pickled spec without its backends; None: as they run."""
    ids: bytes | None
    """The pickled ids of its backends, in order; None: those that run, or if none does, as they come."""
    slices: list[bytes]
    """Its backends as pickled lists of tuples; without those that are as they run."""
    tables: bytes
    """Its pickled sticky tables, by tier; without those that run."""
    loops: Loops | None
    """None: whoever wants to know finds out."""


class StagedChange(NamedTuple):
    """A change of what runs, for a worker to prepare."""

    generation: int
    digest: str
    services: list[PackedService]
    columns: list[bytes] | None
    """The pickled `Columns` of everything, in slices; None: they stay."""
    base: tuple[int, str] | None
    """Generation and hash of what has to run for `services` to be what is other than that; None: they are whole."""


def pack(
    spec: ServiceSpec,
    before: Running | None = None,
    others: Iterable[BackendSpec] | None = None,
    tables: Mapping[int, StickyTable] = MappingProxyType({}),
    loops: Loops | None = None,
) -> PackedService:
    """Make of a service what travels: what is other than `before`, or all of it; `others` is what `different` returns."""
    if others is None:
        others = different(spec, before)
    rows = [(one.id, one.address, one.weight, one.tier, one.state) for one in others]
    options = replace(spec, backends=())
    ids = None if before is None else [one.id for one in spec.backends]
    return PackedService(
        spec.name,
        None if before is not None and replace(before.options, backends=()) == options else dump(options),
        None if before is None or ids == list(before.backends) else dump(ids),
        [dump(rows[start : start + SLICE]) for start in range(0, len(rows), SLICE)],
        dump(dict(tables)),
        loops,
    )


def different(spec: ServiceSpec, before: Running | None) -> list[BackendSpec]:
    """Return those backends of a service that do not run, or otherwise."""
    known = {} if before is None else before.backends
    if len(known) == len(spec.backends):  # of 10,000 nearly all are the same objects in the same places
        pairs = zip(spec.backends, known.values(), strict=True)
        some: Iterable[BackendSpec] = [one for one, other in pairs if one is not other]
    else:
        some = spec.backends
    return [one for one in some if known.get(one.id) != one]


async def unpack(packed: PackedService, before: Running | None = None) -> ServiceSpec:
    """Make a service of what has travelled, letting the loop have its turn after each slice; `before` is as for `pack`."""
    others: dict[str, BackendSpec] = {}
    for one in packed.slices:
        for id_, address, weight, tier, state in load(one):
            others[id_] = BackendSpec(id_, address, weight, tier, state)
        await asyncio.sleep(0)
    known: Mapping[str, BackendSpec] = {} if before is None else before.backends
    backends = {**known, **others}
    if packed.options is not None:
        options: ServiceSpec = load(packed.options)
    else:
        assert before is not None  # noqa: S101 - it is left out only of what runs
        options = before.options
    ids = backends if packed.ids is None else load(packed.ids)
    return replace(options, backends=tuple([backends[id_] for id_ in ids]))


def pack_columns(columns: Columns) -> list[bytes]:
    """Make of columns what travels."""
    items = list(columns.items())
    return [dump(dict(items[start : start + SLICE])) for start in range(0, len(items), SLICE)]


async def unpack_columns(packed: Iterable[bytes]) -> Columns:
    """Make columns of what has travelled, letting the loop have its turn after each slice."""
    columns: Columns = {}
    for one in packed:
        columns |= load(one)
        await asyncio.sleep(0)
    return columns


def load(packed: bytes) -> Any:
    """Return what was packed."""
    return pickle.loads(packed)  # noqa: S301 - from our supervisor


def dump(value: object) -> bytes:
    """Pack something: once, for all workers."""
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
