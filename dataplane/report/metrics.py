"""What a scrape tells, made from the connection path's plain counters.

Theory of operation: it is made in parts, between which the loop relays. What a service has carried, `live` included, is
read in one step, because a connection that ends meanwhile would count twice, or not at all, and a counter would fall.
"""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from dataplane.core.health import HealthState
from dataplane.core.reasons import DiscardCause
from dataplane.ipc.messages import families_of
from dataplane.node.sticky_tables import tables_hash
from dataplane.report.exposition import exposition
from dataplane.report.status import live_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dataplane.ipc.messages import Families
    from dataplane.net.backend import Backend
    from dataplane.net.counters import Histogram
    from dataplane.node.node import Node
    from dataplane.node.running_service import RunningService

__all__ = ["DESCRIPTORS", "MAX_BACKENDS", "MAX_IN_ALL", "SAVED", "Metrics", "Runs"]

MAX_BACKENDS: Final = 200
"""Backends of a service that have series of their own; in a larger service all are summed as `_all`."""
MAX_IN_ALL: Final = 1_000
"""Backends of a node that have series of their own, 70 each; the services that come after those are summed, too."""
PART: Final = 2
"""Backends with series of their own that are told between two turns of the loop: about a millisecond, with the text."""
DESCRIPTORS: Final = {
    "lb_descriptors_watched": "Descriptors in the relay's epoll; of several workers, of the one nearest to its limit",
    "lb_descriptors_limit": "Descriptors at which accepting pauses; of several workers, in the same one",
}
SAVED: Final = "1 unless the snapshot that runs could not be saved, so that a restart would find another"
SLICE: Final = 200
"""Backends that are summed between two turns of the loop."""


class _Families:
    """The metric families, filled service by service."""

    def __init__(self) -> None:
        self._families: dict[str, Any] = {}

    def counter(self, name: str, help_: str, labels: dict[str, str], value: float) -> None:
        """Add one sample of a counter; `name` is without `_total`."""
        self._of(CounterMetricFamily, name, help_, labels).add_metric(list(labels.values()), value)

    def gauge(self, name: str, help_: str, labels: dict[str, str], value: float) -> None:
        """Add one sample of a gauge."""
        self._of(GaugeMetricFamily, name, help_, labels).add_metric(list(labels.values()), value)

    def histogram(self, name: str, help_: str, labels: dict[str, str], value: Histogram) -> None:
        """Add one histogram."""
        bounds = [*map(str, value.bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(value.counts), strict=True))
        family = self._of(HistogramMetricFamily, name, help_, labels)
        family.add_metric(list(labels.values()), buckets=buckets, sum_value=value.sum)

    def _of(self, kind: Any, name: str, help_: str, labels: dict[str, str]) -> Any:
        family = self._families.get(name)
        if family is None:
            family = self._families[name] = kind(name, help_, labels=list(labels))
        return family

    def plain(self) -> Families:
        """Return what was filled."""
        return families_of(self._families.values())


class _Snapshot(Protocol):
    @property
    def generation(self) -> int: ...
    @property
    def hash(self) -> str: ...


class Runs(Protocol):
    """Who knows what runs."""

    @property
    def snapshot(self) -> _Snapshot:
        """What runs, by generation and hash."""

    @property
    def saved(self) -> bool:
        """Whether a restart would find it on disk."""


class Metrics:
    """One process's metrics."""

    def __init__(
        self,
        node: Node,
        applier: Runs,
        dropped_lines: Callable[[], int],
        clock: Callable[[], float],
        spans: Callable[[], tuple[int, int]] = lambda: (0, 0),
    ) -> None:
        self._node = node
        self._applier = applier
        self._dropped_lines = dropped_lines
        self._clock = clock
        self._spans = spans
        self._started_at = clock()

    async def text(self) -> bytes:
        """Return the exposition format."""
        return await exposition(self.parts())

    def parts(self) -> Iterator[Families]:
        """Describe the node as it is, a bounded part at a time."""
        families = _Families()
        self._process(families)
        for listener in list(self._node.listeners.values()):
            labels = {"service": listener.service.name, "address": listener.address}
            families.gauge(
                "lb_listener_accepting", "1 unless accepting is paused", labels, not listener.paused
            )
            families.counter("lb_listener_accepted", "Clients accepted", labels, listener.accepted)
        yield families.plain()
        left = MAX_IN_ALL
        for running in [*self._node.leaving.values(), *self._node.running.values()]:
            backends = [*running.service.backends.values(), *running.service.leaving]
            summed = len(backends) > min(MAX_BACKENDS, left)
            left -= 0 if summed else len(backends)
            yield from self._service(running, backends, summed=summed)

    def _process(self, families: _Families) -> None:
        snapshot = self._applier.snapshot
        families.gauge("lb_generation", "Generation of the snapshot that runs", {}, snapshot.generation)
        families.gauge("lb_snapshot_info", "Hash of the snapshot that runs", {"hash": snapshot.hash}, 1)
        families.gauge("lb_snapshot_saved", SAVED, {}, self._applier.saved)
        families.gauge("lb_uptime_seconds", "Since the process began", {}, self._clock() - self._started_at)
        families.gauge(
            "lb_loop_lag_seconds", "How late the last timer tick was", {}, self._node.reactor.lag_s
        )
        reactor = self._node.reactor
        for (name, help_), value in zip(
            DESCRIPTORS.items(), (len(reactor.handlers), reactor.accept_ceiling), strict=True
        ):
            families.gauge(name, help_, {}, value)
        families.counter(
            "lb_log_lines_dropped",
            "Log lines that a slow reader or a full disk cost",
            {},
            self._dropped_lines(),
        )
        exported, lost = self._spans()
        families.counter("lb_spans_exported", "Spans that the collector has taken", {}, exported)
        families.counter("lb_spans_dropped", "Spans that the collector cost", {}, lost)

    def _service(
        self, running: RunningService, backends: list[Backend], *, summed: bool
    ) -> Iterator[Families]:
        families = _Families()
        service, totals = running.service, running.service.totals
        own = {"service": service.name}
        live = live_bytes(service.flows)
        families.counter("lb_connections", "Clients accepted", own, totals.connections)
        families.gauge("lb_connections_active", "Clients admitted and not gone", own, service.own)
        families.gauge("lb_connections_queued", "Clients waiting for a place", own, len(service.queue))
        for reason, count in totals.closed.items():
            families.counter(
                "lb_connections_closed",
                "Clients gone, by close reason",
                {**own, "reason": reason.value},
                count,
            )
        sent = totals.bytes_in + sum(bytes_in for bytes_in, _ in live.values())
        answered = totals.bytes_out + sum(bytes_out for _, bytes_out in live.values())
        families.counter("lb_bytes_in", "Bytes from clients", own, sent)
        families.counter("lb_bytes_out", "Bytes to clients", own, answered)
        families.counter(
            "lb_connections_handed_over", "Clients that another worker got", own, totals.handed_over
        )
        families.counter("lb_retries", "Connection attempts at a further backend", own, totals.retries)
        families.histogram("lb_session_seconds", "From accept to close", own, totals.session)
        families.histogram("lb_queue_seconds", "Wait for a place", own, totals.queue)
        families.gauge("lb_panic", "1 while health is ignored", own, service.selection.panic)
        families.gauge(
            "lb_backends_usable",
            "Backends that are healthy, enabled and weighted",
            own,
            service.selection.usable,
        )
        families.gauge(
            "lb_backends_serving",
            "Backends that get new connections: the usable ones, in panic the reachable ones",
            own,
            len(service.selection.candidates),
        )
        table_hash = tables_hash(running.tables)
        if table_hash is not None:
            families.gauge("lb_table_info", "Hash of the sticky table", {**own, "table_hash": table_hash}, 1)
        carried = [_carried(one, live) for one in backends]
        yield families.plain()
        yield from _sum_of_all(running, backends, carried) if summed else _each(running, backends, carried)


class _Figures:
    """The samples of one backend, or the sums of many."""

    def __init__(self, running: RunningService) -> None:
        self._running = running
        self._plain: dict[str, float] = dict.fromkeys([*_BACKEND_COUNTERS, *_BACKEND_GAUGES, *_CARRIED], 0)
        self._health: Counter[HealthState] = Counter()
        self._discarded: Counter[DiscardCause] = Counter()

    def add(self, backends: list[Backend], carried: list[tuple[int, int]]) -> None:
        """Add some: plain sums, a few microseconds for each backend."""
        for name, (_, value) in (_BACKEND_COUNTERS | _BACKEND_GAUGES).items():
            self._plain[name] += sum(map(value, backends))
        for index, name in enumerate(_CARRIED):
            self._plain[name] += sum(both[index] for both in carried)
        self._health.update(one.health.state for one in backends)
        ids = {one.id for one in backends}
        for ejection in self._running.outliers.ejected():
            backend = self._running.service.backends.get(ejection.backend_id)
            if backend is not None and backend.id in ids and backend.health.state is not HealthState.DOWN:
                self._health[backend.health.state] -= 1
                self._health[HealthState.EJECTED] += 1
        for cause in DiscardCause:
            self._discarded[cause] += sum(one.totals.discarded[cause] for one in backends)

    def fill(self, families: _Families, label: str) -> None:
        """Tell them as those of the backend `label`."""
        own = {"service": self._running.service.name, "backend": label}
        for name, (help_, _) in _BACKEND_COUNTERS.items():
            families.counter(name, help_, own, self._plain[name])
        for name, (help_, _) in _BACKEND_GAUGES.items():
            families.gauge(name, help_, own, self._plain[name])
        for name, help_ in _CARRIED.items():
            families.counter(name, help_, own, self._plain[name])
        for state in HealthState:
            labels = {**own, "state": state.value}
            families.gauge(
                "lb_backend_health", "1 for the state that is observed", labels, self._health[state]
            )
        for cause in DiscardCause:
            labels = {**own, "cause": cause.value}
            count = self._discarded[cause]
            families.counter("lb_pool_discarded", "Pooled connections closed unused, by cause", labels, count)


def _carried(backend: Backend, live: dict[Backend | None, tuple[int, int]]) -> tuple[int, int]:
    bytes_in, bytes_out = live.get(backend, (0, 0))
    return backend.totals.bytes_in + bytes_in, backend.totals.bytes_out + bytes_out


def _each(
    running: RunningService, backends: list[Backend], carried: list[tuple[int, int]]
) -> Iterator[Families]:
    for start in range(0, len(backends), PART):
        families = _Families()
        for backend, both in zip(backends[start : start + PART], carried[start : start + PART], strict=True):
            figures = _Figures(running)
            figures.add([backend], [both])
            figures.fill(families, backend.id)
            labels = {"service": running.service.name, "backend": backend.id}
            totals = backend.totals
            families.histogram("lb_connect_seconds", "Dials that succeeded", labels, totals.connect)
            families.histogram(
                "lb_first_byte_seconds", "From connected to the first byte", labels, totals.first_byte
            )
        yield families.plain()


def _sum_of_all(
    running: RunningService, backends: list[Backend], carried: list[tuple[int, int]]
) -> Iterator[Families]:
    figures = _Figures(running)
    for start in range(0, len(backends), SLICE):
        figures.add(backends[start : start + SLICE], carried[start : start + SLICE])
        yield []
    families = _Families()
    figures.fill(families, "_all")
    yield families.plain()


_CARRIED: Final = {
    "lb_backend_bytes_in": "Bytes from clients to it",
    "lb_backend_bytes_out": "Bytes from it to clients",
}
_BACKEND_COUNTERS: Final[dict[str, tuple[str, Callable[[Backend], float]]]] = {
    "lb_backend_connections": ("Clients' connections that reached it", lambda one: one.totals.connections),
    "lb_backend_connect_failures": ("Dials that failed", lambda one: one.totals.connect_failures),
    "lb_backend_ejections": ("How often passive health ejected it", lambda one: one.totals.ejections),
    "lb_pool_hits": ("Clients that got a pooled connection", lambda one: one.totals.hits),
    "lb_pool_misses": ("Clients that had to wait for a dial", lambda one: one.totals.misses),
}
_BACKEND_GAUGES: Final[dict[str, tuple[str, Callable[[Backend], float]]]] = {
    "lb_backend_connections_active": ("Clients' connections now, dials included", lambda one: one.own),
    "lb_backend_weight": ("Effective weight", lambda one: one.spec.weight),
    "lb_backend_usable": ("1 while it is healthy, enabled and weighted", lambda one: one.usable),
    "lb_backend_reachable": ("1 unless no connection could be made to it", lambda one: one.reachable),
    "lb_backend_draining": ("1 while it is drained or disabled", lambda one: one.draining_since is not None),
    "lb_pool_idle": ("Idle pooled connections", lambda one: len(one.pool)),
}
