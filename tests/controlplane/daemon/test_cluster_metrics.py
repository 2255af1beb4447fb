"""The cluster's metrics say what `nodes` says."""

from __future__ import annotations

from dataclasses import replace

from controlplane.core.node_record import NodeRecord
from controlplane.core.nodes import Entry, picture_of, seconds_of
from controlplane.daemon.metrics import scrape
from tests.controlplane.daemon.test_metrics import STATUS
from tests.support.dataplane import Metrics

AT = "2026-01-02T03:04:05.000Z"
BASE = NodeRecord(node="n0", at=AT, content="2" * 64, converged=True, ready=True, active=7)


def entry(name, *, session="s", **changes):
    """Return a node's key."""
    return Entry(name, replace(BASE, node=name, **changes).encode(), session, 1)


def metrics(*entries, **more):
    """Return the metrics of a node that sees these."""
    picture = picture_of("edge", entries, now=0.0, wall=seconds_of(AT))
    report = {**picture.report(12.0), "known": True, "error": None, **more}
    return Metrics(scrape({**STATUS, "sources": []}, {}, report).decode())


def test_each_node_has_its_own():
    """Who has left is no node that should be up; of who is gone nothing else is known."""
    told = metrics(
        entry("a"),
        entry("b"),
        entry("c", content="1" * 64, livelb="9", ready=False, active=3),
        entry("d", session=None),
        entry("e", session=None, left=AT),
        Entry("f", b"", None, 1),
    )
    assert {
        presence: told.value("lb_cluster_nodes", cluster="edge", presence=presence)
        for presence in ("live", "gone", "left", "unreadable")
    } == {"live": 3, "gone": 1, "left": 1, "unreadable": 1}

    def of(name):
        return {
            each.labels["node"]: each.value for each in told.samples if each.name == f"lb_cluster_node_{name}"
        }

    assert of("up") == {"a": 1, "b": 1, "c": 1, "d": 0, "f": 0}
    assert of("ready") == {"a": 1, "b": 1, "c": 0}
    assert of("behind") == {"a": 0, "b": 0, "c": 1}
    assert of("disagrees") == {"a": 0, "b": 0, "c": 1}
    assert of("connections_active") == {"a": 7, "b": 7, "c": 3}
    assert told.value("lb_cluster_connected", cluster="edge") == 1
    assert told.value("lb_cluster_picture_age_seconds", cluster="edge") == 12


def test_without_consul_the_last_picture_is_told():
    """With its age, and that it is the last one; of what was never known, nothing."""
    told = metrics(entry("a"), error="unreachable: gone")
    assert told.value("lb_cluster_connected", cluster="edge") == 0
    assert told.value("lb_cluster_node_up", cluster="edge", node="a") == 1
    text = scrape({**STATUS, "sources": []}, {}, {"cluster": "edge", "known": False, "error": None}).decode()
    assert 'lb_cluster_connected{cluster="edge"} 0.0' in text
    assert "lb_cluster_node" not in text


def test_without_a_cluster_there_is_nothing():
    """Not even its name."""
    assert "lb_cluster" not in scrape({**STATUS, "sources": []}, {}).decode()
