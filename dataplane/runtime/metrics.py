"""Prometheus text, made from the connection path's plain counters at each scrape."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from dataplane.core.health import HealthState
from dataplane.core.reasons import DiscardCause
from dataplane.runtime.status import live_bytes
from dataplane.runtime.tables import tables_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.metrics_core import Metric

    from dataplane.net.backend import Backend
    from dataplane.net.counters import Histogram
    from dataplane.runtime.node import Node
    from dataplane.runtime.running import Running

__all__ = ["MAX_BACKENDS", "Metrics", "Runs"]

MAX_BACKENDS: Final = 200
"""Backends of a service that have series of their own; in a larger service all are summed as `_all`."""
_SB: Final = ("service", "backend")


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

    def all(self) -> Iterator[Metric]:
        """Yield what was filled."""
        yield from self._families.values()


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


class Metrics(Collector):
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
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """Return the exposition format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Describe the node as it is now."""
        families = _Families()
        self._process(families)
        for running in [*self._node.leaving.values(), *self._node.running.values()]:
            self._service(families, running)
        for listener in self._node.listeners.values():
            labels = {"service": listener.service.name, "address": listener.address}
            families.gauge(
                "lb_listener_accepting", "1 unless accepting is paused", labels, not listener.paused
            )
            families.counter("lb_listener_accepted", "Clients accepted", labels, listener.accepted)
        yield from families.all()

    def _process(self, families: _Families) -> None:
        snapshot = self._applier.snapshot
        families.gauge("lb_generation", "Generation of the snapshot that runs", {}, snapshot.generation)
        families.gauge("lb_snapshot_info", "Hash of the snapshot that runs", {"hash": snapshot.hash}, 1)
        families.gauge("lb_uptime_seconds", "Since the process began", {}, self._clock() - self._started_at)
        families.gauge(
            "lb_loop_lag_seconds", "How late the last timer tick was", {}, self._node.reactor.lag_s
        )
        families.gauge(
            "lb_descriptors_watched", "Descriptors in the relay's epoll", {}, len(self._node.reactor.handlers)
        )
        families.gauge(
            "lb_descriptors_limit",
            "Descriptors at which accepting pauses",
            {},
            self._node.reactor.accept_ceiling,
        )
        families.counter(
            "lb_log_lines_dropped", "Log lines that a slow reader cost", {}, self._dropped_lines()
        )
        exported, lost = self._spans()
        families.counter("lb_spans_exported", "Spans that the collector has taken", {}, exported)
        families.counter("lb_spans_dropped", "Spans that the collector cost", {}, lost)

    def _service(self, families: _Families, running: Running) -> None:
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
            "lb_backends_usable", "Backends that may take new connections", own, service.selection.usable
        )
        table_hash = tables_hash(running.tables)
        if table_hash is not None:
            families.gauge("lb_table_info", "Hash of the sticky table", {**own, "table_hash": table_hash}, 1)
        self._backends(families, running, live)

    def _backends(
        self, families: _Families, running: Running, live: dict[Backend | None, tuple[int, int]]
    ) -> None:
        service = running.service
        backends = [*service.backends.values(), *service.leaving]
        if len(backends) > MAX_BACKENDS:
            self._rows(families, running, "_all", backends, live)
            return
        for backend in backends:
            self._rows(families, running, backend.id, [backend], live)
            labels = dict(zip(_SB, (service.name, backend.id), strict=True))
            families.histogram("lb_connect_seconds", "Dials that succeeded", labels, backend.totals.connect)
            families.histogram(
                "lb_first_byte_seconds", "From connected to the first byte", labels, backend.totals.first_byte
            )

    def _rows(
        self,
        families: _Families,
        running: Running,
        label: str,
        backends: list[Backend],
        live: dict[Backend | None, tuple[int, int]],
    ) -> None:
        """Add the samples of one backend, or of many summed: plain sums, 1 us for each backend."""
        own = {"service": running.service.name, "backend": label}
        for name, (help_, value) in _BACKEND_COUNTERS.items():
            families.counter(name, help_, own, sum(map(value, backends)))
        for name, (help_, value) in _BACKEND_GAUGES.items():
            families.gauge(name, help_, own, sum(map(value, backends)))
        for name, direction in (("lb_backend_bytes_in", 0), ("lb_backend_bytes_out", 1)):
            total = sum(
                (one.totals.bytes_in, one.totals.bytes_out)[direction] + live.get(one, _NO_BYTES)[direction]
                for one in backends
            )
            families.counter(
                name, ("Bytes from clients to it", "Bytes from it to clients")[direction], own, total
            )
        health = Counter(one.health.state for one in backends)
        ids = {one.id for one in backends}
        for ejection in running.outliers.ejected():
            backend = running.service.backends.get(ejection.backend_id)
            if backend is not None and backend.id in ids and backend.health.state is not HealthState.DOWN:
                health[backend.health.state] -= 1
                health[HealthState.EJECTED] += 1
        for state in HealthState:
            labels = {**own, "state": state.value}
            families.gauge("lb_backend_health", "1 for the state that is observed", labels, health[state])
        for cause in DiscardCause:
            count = sum(one.totals.discarded[cause] for one in backends)
            labels = {**own, "cause": cause.value}
            families.counter("lb_pool_discarded", "Pooled connections closed unused, by cause", labels, count)


_NO_BYTES: Final = (0, 0)
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
    "lb_backend_usable": ("1 while it may take new connections", lambda one: one.usable),
    "lb_backend_draining": ("1 while it is drained or disabled", lambda one: one.draining_since is not None),
    "lb_pool_idle": ("Idle pooled connections", lambda one: len(one.pool)),
}
