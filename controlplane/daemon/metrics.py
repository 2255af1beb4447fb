"""The daemon's own metrics: whether what was accepted runs everywhere, and how each source fares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily

from controlplane.daemon.cluster_metrics import cluster_families
from controlplane.dataplanes.pusher import Pushes

_STATES: Final = ("ok", "stale", "held", "denied", "error")
"""Of a source, the worst last."""
_SELECTION: Final = ("source", "services")
"""The labels of one."""


class _NodeCollector:
    """Makes metrics of a node's status."""

    def __init__(
        self, status: Mapping[str, Any], pushes: Mapping[str, Pushes], nodes: Mapping[str, Any] | None
    ) -> None:
        self._status = status
        self._pushes = pushes
        self._nodes = nodes

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
        yield _gauge(
            "unserved",
            "1 for a service that lb.yaml asks for and nobody serves, since nothing is known of its backends.",
            {(row["service"],): True for row in status["unserved"]},
            "service",
        )
        # Data planes of several machines may have one name: who is worst off speaks for them.
        planes: dict[str, list[Mapping[str, Any]]] = {}
        for row in status["dataplanes"]:
            planes.setdefault(row["name"], []).append(row)
        yield from _data_planes(planes)
        yield from _pushed(planes, self._pushes)
        # Two services may ask the same of Consul with other filters, under one name: the worst counts.
        worst: dict[str, str] = {}
        for row in status["sources"]:
            name, state = row["name"], row["state"]
            worst[name] = max(worst.get(name, "ok"), state, key=_STATES.index)
        states = {(name, each): each == state for name, state in worst.items() for each in _STATES}
        yield _gauge("source_state", "1 for the state that the source is in.", states, "source", "state")
        yield from _consul(status["sources"])
        yield from cluster_families(self._nodes)


def _gauge(name: str, text: str, values: Mapping[Any, float], *labels: str) -> Metric:
    gauge = GaugeMetricFamily(f"lb_control_{name}", text, labels=labels)
    for names, value in values.items():
        gauge.add_metric(names, float(value))
    return gauge


def _data_planes(planes: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Metric]:
    reachable = {(name,): all(row["reachable"] for row in rows) for name, rows in planes.items()}
    yield _gauge("dataplane_reachable", "1 while a data plane answers.", reachable, "dataplane")
    refuses = {
        (name,): any(row["reachable"] and row["error"] is not None for row in rows)
        for name, rows in planes.items()
    }
    what = "1 while it answers, and does not take what was accepted."
    yield _gauge("dataplane_refuses", what, refuses, "dataplane")
    generations = {
        (name,): min(known)
        for name, rows in planes.items()
        if (known := [row["generation"] for row in rows if row["generation"] is not None])
    }
    what = "Generation that it runs, as far as is known."
    yield _gauge("dataplane_generation", what, generations, "dataplane")


def _consul(sources: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
    """Yield what status says of each selection: the same words and numbers, for whoever alarms on them."""
    what = "1 for the state that the source is in."
    state = GaugeMetricFamily("lb_consul_state", what, labels=(*_SELECTION, "state"))
    what = "Instances in the last answer, by condition."
    instances = GaugeMetricFamily("lb_consul_instances", what, labels=(*_SELECTION, "condition"))
    what = "Backends kept against Consul's word."
    held = GaugeMetricFamily("lb_consul_held_instances", what, labels=_SELECTION)
    age = GaugeMetricFamily("lb_consul_answer_age_seconds", "Age of the last answer.", labels=_SELECTION)
    polls = CounterMetricFamily("lb_consul_polls", "Questions asked.", labels=_SELECTION)
    what = "Blocking queries that returned with news."
    wakes = CounterMetricFamily("lb_consul_wakes", what, labels=_SELECTION)
    resets = CounterMetricFamily("lb_consul_resets", "Indexes that went backwards.", labels=_SELECTION)
    what = "Questions that failed, by kind."
    errors = CounterMetricFamily("lb_consul_errors", what, labels=(*_SELECTION, "kind"))
    for row in sources:
        if "counts" not in row:
            continue
        own = row["name"], ",".join(row["services"])
        for each in _STATES:
            state.add_metric((*own, each), float(row["state"] == each))
        for condition, number in row["counts"].items():
            instances.add_metric((*own, condition), number)
        held.add_metric(own, float(row["held"]["count"]) if row["held"] else 0.0)
        if row["age_s"] is not None:
            age.add_metric(own, float(row["age_s"]))
        polls.add_metric(own, row["polls"])
        wakes.add_metric(own, row["wakes"])
        resets.add_metric(own, row["resets"])
        for kind, number in row["errors"].items():
            errors.add_metric((*own, kind), number)
    yield from (state, instances, held, age, polls, wakes, resets, errors)


def _pushed(
    planes: Mapping[str, Sequence[Mapping[str, Any]]], pushes: Mapping[str, Pushes]
) -> Iterator[Metric]:
    what = "Snapshots sent, by what became of them."
    results = CounterMetricFamily("lb_control_pushes", what, labels=("dataplane", "result"))
    what = "From sending to the acknowledgement that all of it runs."
    seconds = SummaryMetricFamily("lb_control_push_seconds", what, labels=("dataplane",))
    for name, rows in planes.items():
        those = [pushes[row["socket"]] for row in rows if row["socket"] in pushes]
        if those:
            for result in ("acked", "refused", "failed"):
                results.add_metric((name, result), sum(getattr(each, result) for each in those))
            acked = sum(each.acked for each in those)
            seconds.add_metric((name,), count_value=acked, sum_value=sum(each.acked_s for each in those))
    yield from (results, seconds)


def scrape(
    status: Mapping[str, Any], pushes: Mapping[str, Pushes], nodes: Mapping[str, Any] | None = None
) -> bytes:
    """Return a node's status as Prometheus text, and the picture of its cluster if it belongs to one."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_NodeCollector(status, pushes, nodes))
    return generate_latest(registry)
