"""The daemon's own metrics: whether what was accepted runs everywhere, and how each source fares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily

from controlplane.discovery.consul.metrics import STATES, ConsulCollector

if TYPE_CHECKING:
    from prometheus_client import Metric

    from controlplane.dataplanes.pusher import Pushes

__all__ = ["scrape"]


class _NodeCollector:
    """Makes metrics of a node's status."""

    def __init__(self, status: Mapping[str, Any], pushes: Mapping[str, Pushes]) -> None:
        self._status = status
        self._pushes = pushes

    def collect(self) -> Iterator[Metric]:
        status = self._status
        for name, text, value in (
            ("generation", "Generation that was accepted last.", status["generation"]),
            ("converged", "1 while every data plane runs it.", status["converged"]),
            ("config_error", "1 while the watched lb.yaml is not taken.", status["config_error"] is not None),
            (
                "contested",
                "1 while somebody else pushes to the same data planes.",
                bool(status.get("contested")),
            ),
            ("overrides", "Operators' overrides in force.", len(status["overrides"])),
        ):
            yield GaugeMetricFamily(f"lb_control_{name}", text, value=float(value))
        missing = GaugeMetricFamily(
            "lb_control_unserved",
            "1 for a service that lb.yaml asks for and nobody serves, since nothing is known of its backends.",
            labels=("service",),
        )
        for row in status["unserved"]:
            missing.add_metric((row["service"],), 1.0)
        yield missing
        yield from _data_planes(status["dataplanes"])
        yield from _pushed(status["dataplanes"], self._pushes)
        states = GaugeMetricFamily(
            "lb_control_source_state", "1 for the state that the source is in.", labels=("source", "state")
        )
        # Two services may ask the same of Consul with other filters, under one name: the worst counts.
        worst: dict[str, str] = {}
        for row in status["sources"]:
            name, state = row["name"], row["state"]
            worst[name] = max(worst.get(name, "ok"), state, key=STATES.index)
        for name, state in worst.items():
            for each in STATES:
                states.add_metric((name, each), float(each == state))
        yield states


def _data_planes(rows: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    label = ("dataplane",)
    reachable = GaugeMetricFamily(
        "lb_control_dataplane_reachable", "1 while a data plane answers.", labels=label
    )
    refuses = GaugeMetricFamily(
        "lb_control_dataplane_refuses",
        "1 while it answers, and does not take what was accepted.",
        labels=label,
    )
    generation = GaugeMetricFamily(
        "lb_control_dataplane_generation", "Generation that it runs, as far as is known.", labels=label
    )
    # Data planes of several machines may have one name: who is worst off speaks for them.
    named: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        named.setdefault(row["name"], []).append(row)
    for name, those in named.items():
        reachable.add_metric((name,), float(all(row["reachable"] for row in those)))
        refuses.add_metric(
            (name,), float(any(row["reachable"] and row["error"] is not None for row in those))
        )
        known = [row["generation"] for row in those if row["generation"] is not None]
        if known:
            generation.add_metric((name,), float(min(known)))
    yield from (reachable, refuses, generation)


def _pushed(rows: Sequence[Mapping[str, Any]], pushes: Mapping[str, Pushes]) -> Iterator[Metric]:
    results = CounterMetricFamily(
        "lb_control_pushes", "Snapshots sent, by what became of them.", labels=("dataplane", "result")
    )
    seconds = SummaryMetricFamily(
        "lb_control_push_seconds",
        "From sending to the acknowledgement that all of it runs.",
        labels=("dataplane",),
    )
    named: dict[str, list[Pushes]] = {}
    for row in rows:
        if row["socket"] in pushes:
            named.setdefault(row["name"], []).append(pushes[row["socket"]])
    for name, those in named.items():
        acked = sum(each.acked for each in those)
        results.add_metric((name, "acked"), acked)
        results.add_metric((name, "refused"), sum(each.refused for each in those))
        results.add_metric((name, "failed"), sum(each.failed for each in those))
        seconds.add_metric((name,), count_value=acked, sum_value=sum(each.acked_s for each in those))
    yield from (results, seconds)


def scrape(status: Mapping[str, Any], pushes: Mapping[str, Pushes]) -> bytes:
    """Return a node's status as Prometheus text."""
    sources: Callable[[], Sequence[Mapping[str, Any]]] = lambda: status["sources"]  # noqa: E731 - it needs a type
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_NodeCollector(status, pushes))
    registry.register(ConsulCollector(sources))
    return generate_latest(registry)
