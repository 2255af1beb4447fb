"""Metrics of the cluster, as this node sees it: the same words and numbers as `nodes` has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

_PRESENCES: Final = ("live", "gone", "left", "unreadable")
_NODE: Final = ("cluster", "node")


def cluster_families(report: Mapping[str, Any] | None) -> Iterator[Metric]:
    """Yield what a picture says, as `GET /v1/nodes` answers it; nothing where there is no cluster."""
    if report is None:
        return
    cluster = report["cluster"]
    what = "1 while this node sees the others, and they see it; 0 while Consul is away or denies, or the name is taken."
    yield _of_cluster("connected", what, cluster, report["known"] and report["error"] is None)
    if not report["known"]:
        return
    what = "Age of the last answer of Consul about the nodes; up to half a minute is none."
    yield _of_cluster("picture_age_seconds", what, cluster, report["age_s"])
    counts = Counter(each["presence"] for each in report["nodes"])
    nodes = GaugeMetricFamily(
        "lb_cluster_nodes", "Nodes, by whether they are there.", labels=("cluster", "presence")
    )
    for presence in _PRESENCES:
        nodes.add_metric((cluster, presence), counts[presence])
    yield nodes
    there = [each for each in report["nodes"] if each["presence"] != "left"]
    up = {each["name"]: each["presence"] == "live" for each in there}
    yield _of_nodes("up", "1 while a node is live; nothing of one that has left.", cluster, up)
    live = [each for each in there if each["presence"] == "live"]
    for name, what, values in (
        (
            "ready",
            "1 while a live node is ready for clients.",
            {each["name"]: each["record"]["ready"] for each in live},
        ),
        (
            "behind",
            "1 while a live node does not run what its key says, or most nodes run.",
            {each["name"]: each["behind"] is not None for each in live},
        ),
        (
            "disagrees",
            "In how many things a live node differs from those that it should be like.",
            {each["name"]: len(each["disagrees"]) for each in live},
        ),
        (
            "connections_active",
            "Clients' connections of a live node, as it said last.",
            {each["name"]: each["record"]["active"] for each in live},
        ),
    ):
        yield _of_nodes(name, what, cluster, values)


def _of_cluster(name: str, text: str, cluster: str, value: float) -> Metric:
    gauge = GaugeMetricFamily(f"lb_cluster_{name}", text, labels=("cluster",))
    gauge.add_metric((cluster,), float(value))
    return gauge


def _of_nodes(name: str, text: str, cluster: str, values: Mapping[str, float]) -> Metric:
    gauge = GaugeMetricFamily(f"lb_cluster_node_{name}", text, labels=_NODE)
    for node, value in values.items():
        gauge.add_metric((cluster, node), float(value))
    return gauge
