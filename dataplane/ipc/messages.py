"""What a supervisor and its workers send each other: services in slices."""

from __future__ import annotations

import asyncio
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from dataplane.core.spec import BackendSpec, OperatorState, ServiceSpec
from dataplane.telemetry.connection_log import RecordingOptions

INBOX: Final = "inbox"
"""What stands for an address where an inbox is lent instead of a listening socket; no address looks like it."""
SLICE: Final = 250
"""Backends that are unpickled between two turns of the loop: a fifth of a millisecond."""

PackedService = tuple[bytes, list[bytes]]
"""The pickled spec without its backends, and those as pickled lists of tuples."""
Columns = dict[object, int]
"""By service name, or (service name, backend id): the column of the shared counters."""
Verdict = tuple[str, str, str, str, bool, bool]
"""Of a backend: service, id, state, cause, whether it is reachable, and whether the last check passed."""
Word = tuple[str, str, int]
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


def pack(spec: ServiceSpec) -> PackedService:
    """Make of a service what travels."""
    rows = [(one.id, one.address, one.weight, one.tier, one.state.value) for one in spec.backends]
    return (
        pickle.dumps(replace(spec, backends=()), protocol=pickle.HIGHEST_PROTOCOL),
        [pickle.dumps(rows[start : start + SLICE]) for start in range(0, len(rows), SLICE)],
    )


async def unpack(packed: PackedService) -> ServiceSpec:
    """Make a service of what has travelled, letting the loop have its turn after each slice."""
    head, slices = packed
    backends: list[BackendSpec] = []
    for one in slices:
        backends.extend(
            BackendSpec(id_, address, weight, tier, OperatorState(state))
            for id_, address, weight, tier, state in pickle.loads(one)  # noqa: S301 - from our supervisor
        )
        await asyncio.sleep(0)
    spec: ServiceSpec = pickle.loads(head)  # noqa: S301 - the same
    return replace(spec, backends=tuple(backends))
