"""What a process has counted and what it sees (`views`), in plain values that travel and add up.

Theory of operation:

1. `reader.Reader` makes them of a node's counters, in parts of bounded size. Status and metrics are rendered from nothing
   else, of one process as of several; a worker's parts travel to its supervisor as they are. Status tells of each
   backend; metrics tell of a service with many backends as one, a crowd, and then no more is read than its sums.
2. Adding is the same for parts of one process and for several processes. What was counted and what is held is summed; a
   listener is paused if one has paused it.
3. A worker that drains is told of no change and no check any more: what it has counted and what it holds is part of the
   sum, what it sees only where nobody else sees anything (`silence`). Of one that has ended, its totals remain (`past`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from operator import add
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

from dataplane.report.views import BackendView, Row, ServiceView, Sights, values_of

if TYPE_CHECKING:
    from schemas.status import WorkerStatus

Sample = tuple[str, dict[str, str], float]
"""Name, labels, value."""
Family = tuple[str, str, str, Iterable[Sample]]
"""Of metrics: type, name, help, and samples."""
Numbers = tuple[float, ...]
"""A histogram: the count of each bucket, not cumulative, and then the sum."""


def add_counts(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    """Add what is counted by words."""
    return one | {word: one.get(word, 0) + count for word, count in other.items()}


class _Added(Row):
    """Of which each field is the sum."""

    __slots__ = ()

    def __add__(self, other: Self) -> Self:
        read = values_of(self.__slots__)
        return type(self)(
            *[
                add_columns(one, more) if isinstance(one, tuple) else one + more
                for one, more in zip(read(self), read(other), strict=True)
            ]
        )


def add_columns(one: Numbers, other: Numbers) -> Numbers:
    """Add number by number; nothing was read where there are none."""
    return tuple(map(add, one, other)) if one and other else one or other


@dataclass(slots=True)
class ProcessFigures:
    """What is a process's and no service's."""

    lag_s: float = 0.0
    """How late the last tick was; of several processes, the longest."""
    watched: int = 0
    """Descriptors in the relay's epoll; of several processes, in the one that is nearest to its limit."""
    limit: int = 0
    """Descriptors at which accepting pauses there."""
    dropped_lines: int = 0
    exported_spans: int = 0
    dropped_spans: int = 0

    def __add__(self, other: ProcessFigures) -> ProcessFigures:
        fullest = max(self, other, key=lambda one: (one.watched / max(1, one.limit), one.limit))
        return ProcessFigures(
            max(self.lag_s, other.lag_s),
            fullest.watched,
            fullest.limit,
            self.dropped_lines + other.dropped_lines,
            self.exported_spans + other.exported_spans,
            self.dropped_spans + other.dropped_spans,
        )


@dataclass(slots=True)
class RecentFigures:
    """What a service's clients met lately."""

    window_s: float = 0.0
    connections: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: RecentFigures) -> RecentFigures:
        return RecentFigures(
            max(self.window_s, other.window_s),
            self.connections + other.connections,
            add_counts(self.refused, other.refused),
            add_counts(self.cut, other.cut),
        )


@dataclass(slots=True)
class ServiceFigures(_Added):
    """One service, but for its listeners and backends."""

    view: ServiceView
    recent: RecentFigures
    active: int
    queued: int
    connections: int
    bytes_in: int
    bytes_out: int
    retries: int
    handed_over: int
    closed: tuple[int, ...]
    """In the order of `CloseReason`."""
    session: Numbers
    queue: Numbers
    tls: Numbers = ()
    """Of clients' handshakes (`tls_row`)."""

    def past(self) -> ServiceFigures:
        """Return what outlives its process."""
        return replace(self, view=replace(self.view, silent=True), recent=RecentFigures(), active=0, queued=0)


@dataclass(slots=True)
class ListenerFigures:
    """One address that is accepted on."""

    accepted: int
    state: Literal["accepting", "paused", "closing"] | None
    """None: nobody accepts from it who tells of it."""

    def __add__(self, other: ListenerFigures) -> ListenerFigures:
        state = "paused" if "paused" in {self.state, other.state} else self.state or other.state
        return ListenerFigures(self.accepted + other.accepted, state)


View = TypeVar("View", BackendView, Sights)


@dataclass(slots=True)
class BackendFigures(_Added, Generic[View]):
    """One backend, or all of a service that has too many to tell of each: a crowd."""

    view: View
    active: int
    pooled: int
    connections: int
    connect_failures: int
    bytes_in: int
    bytes_out: int
    ejections: int
    hits: int
    misses: int
    discarded: tuple[int, ...]
    """In the order of `DiscardCause`."""
    connect: Numbers
    """Of a crowd and its backends, nothing: nobody is told of it."""
    first_byte: Numbers
    """Of a crowd, nothing."""
    tls: Numbers = ()
    """Of handshakes with it (`tls_row`)."""

    def past(self) -> BackendFigures[View]:
        """Return what outlives its process."""
        return replace(self, view=self.view.silenced(), active=0, pooled=0)


@dataclass(slots=True)
class Figures:
    """Those of one process, of a part of it, or of several."""

    process: ProcessFigures = field(default_factory=ProcessFigures)
    services: dict[str, ServiceFigures] = field(default_factory=dict)
    listeners: dict[tuple[str, str], ListenerFigures] = field(default_factory=dict)
    """By service and address."""
    backends: dict[tuple[str, str], BackendFigures[BackendView]] = field(default_factory=dict)
    """By service and id."""
    crowds: dict[str, BackendFigures[Sights]] = field(default_factory=dict)
    """By service; of their backends nothing else is told where metrics are asked for."""

    @property
    def pooled(self) -> int:
        """Idle connections to all backends."""
        return sum(one.pooled for some in (self.backends, self.crowds) for one in some.values())

    def add(self, more: Figures) -> None:
        """Add `more`, which stays as it is."""
        self.process += more.process
        _add(self.services, more.services)
        _add(self.listeners, more.listeners)
        _add(self.backends, more.backends)
        _add(self.crowds, more.crowds)

    def silence(self) -> None:
        """Take note that the process drains."""
        self.process = replace(self.process, watched=0, limit=0)
        for listener in self.listeners.values():
            listener.state = None
        for service in self.services.values():
            service.view.silent = True
        for backend in self.backends.values():
            backend.view.silent = True
        for crowd in self.crowds.values():
            crowd.view = Sights()

    def past(self) -> Figures:
        """Return what outlives the process."""
        return Figures(
            replace(self.process, lag_s=0.0, watched=0, limit=0),
            {name: one.past() for name, one in self.services.items()},
            {key: replace(one, state=None) for key, one in self.listeners.items()},
            {key: one.past() for key, one in self.backends.items()},
            {name: one.past() for name, one in self.crowds.items()},
        )


def _add(into: dict[Any, Any], more: dict[Any, Any]) -> None:
    for key, one in more.items():
        mine = into.get(key)
        into[key] = one if mine is None else mine + one


@dataclass(slots=True)
class Tally:
    """What there is to say at one moment."""

    figures: Figures
    workers: list[WorkerStatus]
    """Those that accept."""
    families: list[Family] = field(default_factory=list)
    """Metrics that only a supervisor has."""


async def total(parts: Iterable[Figures]) -> Figures:
    """Add up, and give the loop its turn after each part."""
    result = Figures()
    for part in parts:
        result.add(part)
        await asyncio.sleep(0)
    return result
