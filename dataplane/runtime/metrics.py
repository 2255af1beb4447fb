"""Prometheus text, made from the connection path's plain counters at each scrape."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from dataplane.runtime.status import live_bytes
from dataplane.runtime.tables import tables_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.metrics_core import Metric

    from dataplane.net.backend import Backend
    from dataplane.net.counters import Histogram
    from dataplane.runtime.node import Node, Running

__all__ = ["MAX_BACKENDS", "Metrics", "Runs"]

MAX_BACKENDS: Final = 200
"""Backends of a service that have series of their own; in a larger service all are summed as `_all`."""
_SB: Final = ("service", "backend")
_HEALTH: Final = ("up", "down", "unknown", "ejected")


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
        self, node: Node, applier: Runs, dropped_lines: Callable[[], int], clock: Callable[[], float]
    ) -> None:
        self._node = node
        self._applier = applier
        self._dropped_lines = dropped_lines
        self._clock = clock
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
        summed = len(backends) > MAX_BACKENDS
        rows: dict[tuple[str, ...], float] = {}
        for backend in backends:
            label = "_all" if summed else backend.id
            for key, value in self._backend(running, backend, live.get(backend, (0, 0))):
                rows[(*key, label)] = rows.get((*key, label), 0) + value
            if not summed:
                labels = dict(zip(_SB, (service.name, backend.id), strict=True))
                families.histogram(
                    "lb_connect_seconds", "Dials that succeeded", labels, backend.totals.connect
                )
                families.histogram(
                    "lb_first_byte_seconds",
                    "From connected to the first byte",
                    labels,
                    backend.totals.first_byte,
                )
        for (name, extra, extra_value, label), number in rows.items():
            labels = {"service": service.name, "backend": label, **({extra: extra_value} if extra else {})}
            kind = families.gauge if name in _BACKEND_GAUGES else families.counter
            kind(name, _BACKEND_HELP[name], labels, number)

    def _backend(
        self, running: Running, backend: Backend, live: tuple[int, int]
    ) -> Iterator[tuple[tuple[str, str, str], float]]:
        """Yield ((name, extra label, its value), number) for everything that can be summed."""
        totals = backend.totals
        health = self._node.health(running, backend).state.value
        yield ("lb_backend_connections", "", ""), totals.connections
        yield ("lb_backend_connections_active", "", ""), backend.own
        yield ("lb_backend_connect_failures", "", ""), totals.connect_failures
        yield ("lb_backend_bytes_in", "", ""), totals.bytes_in + live[0]
        yield ("lb_backend_bytes_out", "", ""), totals.bytes_out + live[1]
        yield ("lb_backend_ejections", "", ""), totals.ejections
        yield ("lb_backend_weight", "", ""), backend.spec.weight
        yield ("lb_backend_usable", "", ""), backend.usable
        for state in _HEALTH:
            yield ("lb_backend_health", "state", state), health == state
        yield ("lb_backend_draining", "", ""), backend.draining_since is not None
        yield ("lb_pool_idle", "", ""), len(backend.pool)
        yield ("lb_pool_hits", "", ""), totals.hits
        yield ("lb_pool_misses", "", ""), totals.misses
        for cause, count in totals.discarded.items():
            yield ("lb_pool_discarded", "cause", cause.value), count


_BACKEND_GAUGES: Final = frozenset(
    {
        "lb_backend_connections_active",
        "lb_backend_draining",
        "lb_backend_health",
        "lb_backend_usable",
        "lb_backend_weight",
        "lb_pool_idle",
    }
)
_BACKEND_HELP: Final = {
    "lb_backend_connections": "Clients' connections that reached it",
    "lb_backend_connections_active": "Clients' connections now, dials included",
    "lb_backend_connect_failures": "Dials that failed",
    "lb_backend_bytes_in": "Bytes from clients to it",
    "lb_backend_bytes_out": "Bytes from it to clients",
    "lb_backend_ejections": "How often passive health ejected it",
    "lb_backend_weight": "Effective weight",
    "lb_backend_usable": "1 while it may take new connections",
    "lb_backend_health": "1 for the state that is observed",
    "lb_backend_draining": "1 while it is drained or disabled",
    "lb_pool_idle": "Idle pooled connections",
    "lb_pool_hits": "Clients that got a pooled connection",
    "lb_pool_misses": "Clients that had to wait for a dial",
    "lb_pool_discarded": "Pooled connections closed unused, by cause",
}
