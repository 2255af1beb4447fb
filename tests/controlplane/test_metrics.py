"""The daemon's metrics say what its status says."""

from __future__ import annotations

from controlplane.metrics import scrape
from tests.support.dataplane import Metrics


def test_status_as_metrics():
    """Generation, agreement, data planes and the state of each source; of two with one name the worse."""
    status = {
        "generation": 7,
        "converged": True,
        "config_error": {"message": "no"},
        "overrides": [{}, {}],
        "dataplanes": [{"name": "a", "reachable": True}, {"name": "b", "reachable": False}],
        "sources": [
            {"name": "file lb.yaml", "state": "error"},
            {"name": "consul-kv:lb", "state": "held"},
            {"name": "consul-kv:lb", "state": "stale"},
        ],
    }
    metrics = Metrics(scrape(status).decode())
    assert metrics.value("lb_control_generation") == 7
    assert metrics.value("lb_control_converged") == 1
    assert metrics.value("lb_control_config_error") == 1
    assert metrics.value("lb_control_overrides") == 2
    assert metrics.value("lb_control_dataplane_reachable", dataplane="a") == 1
    assert metrics.value("lb_control_dataplane_reachable", dataplane="b") == 0
    assert metrics.value("lb_control_source_state", source="file lb.yaml", state="error") == 1
    assert metrics.value("lb_control_source_state", source="file lb.yaml", state="ok") == 0
    assert metrics.value("lb_control_source_state", source="consul-kv:lb") == 1
    assert metrics.value("lb_control_source_state", source="consul-kv:lb", state="held") == 1
