"""The daemon's metrics say what its status says."""

from __future__ import annotations

from controlplane.daemon.metrics import scrape
from controlplane.dataplanes.pusher import Pushes
from tests.support.dataplane import Metrics


def test_status_as_metrics():
    """Generation, agreement, data planes and the state of each source; of two sources with one name the worse, and of two data planes."""
    status = {
        "generation": 7,
        "converged": True,
        "config_error": {"message": "no"},
        "overrides": [{}, {}],
        "unserved": [{"service": "db", "why": "Consul has not answered"}],
        "dataplanes": [
            {"name": "a", "socket": "/a", "reachable": True, "error": None, "generation": 7},
            {"name": "b", "socket": "/b", "reachable": False, "error": "does not answer", "generation": None},
            {
                "name": "main",
                "socket": "https://1",
                "reachable": True,
                "error": "refused: no",
                "generation": 7,
            },
            {"name": "main", "socket": "https://2", "reachable": False, "error": "gone", "generation": 6},
        ],
        "sources": [
            {"name": "file lb.yaml", "state": "error"},
            {"name": "consul-kv:lb", "state": "held"},
            {"name": "consul-kv:lb", "state": "stale"},
        ],
    }
    pushes = {
        "/a": Pushes(acked=2, refused=1, failed=0, acked_s=0.5),
        "https://1": Pushes(acked=1, refused=0, failed=3, acked_s=0.25),
        "https://2": Pushes(acked=1, refused=0, failed=0, acked_s=0.5),
        "/gone": Pushes(acked=9),
    }
    metrics = Metrics(scrape(status, pushes).decode())
    assert metrics.value("lb_control_generation") == 7
    assert metrics.value("lb_control_converged") == 1
    assert metrics.value("lb_control_config_error") == 1
    assert metrics.value("lb_control_overrides") == 2
    assert metrics.value("lb_control_unserved", service="db") == 1
    assert metrics.value("lb_control_dataplane_reachable", dataplane="a") == 1
    assert metrics.value("lb_control_dataplane_reachable", dataplane="b") == 0
    refuses = {
        each: metrics.value("lb_control_dataplane_refuses", dataplane=each) for each in ("a", "b", "main")
    }
    assert refuses == {"a": 0, "b": 0, "main": 1}
    assert metrics.value("lb_control_dataplane_reachable", dataplane="main") == 0
    assert metrics.value("lb_control_dataplane_generation", dataplane="main") == 6
    assert len([one for one in metrics.samples if one.name == "lb_control_dataplane_generation"]) == 2
    assert metrics.value("lb_control_source_state", source="file lb.yaml", state="error") == 1
    assert metrics.value("lb_control_source_state", source="file lb.yaml", state="ok") == 0
    assert metrics.value("lb_control_source_state", source="consul-kv:lb") == 1
    assert metrics.value("lb_control_source_state", source="consul-kv:lb", state="held") == 1
    pushed = {
        (one.labels["dataplane"], one.labels["result"]): one.value
        for one in metrics.samples
        if one.name == "lb_control_pushes_total" and one.value
    }
    assert pushed == {("a", "acked"): 2, ("a", "refused"): 1, ("main", "acked"): 2, ("main", "failed"): 3}
    assert metrics.value("lb_control_push_seconds_sum", dataplane="main") == 0.75
    assert metrics.value("lb_control_push_seconds_count", dataplane="main") == 2
