"""The daemon's metrics say what its status says."""

from __future__ import annotations

import pytest

from controlplane.daemon.metrics import scrape
from controlplane.dataplanes.pusher import Pushes
from tests.support.dataplane import Metrics
from tests.support.discovery import Discovering
from tests.support.fakeconsul import FakeConsul, entry

STATUS = {
    "generation": 1,
    "converged": True,
    "config_error": None,
    "overrides": [],
    "unserved": [],
    "dataplanes": [],
}


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


def consul(sources):
    """Every sample of what Consul has said, by name and by the labels that tell it from its siblings."""
    return {
        (
            sample.name,
            *(value for key, value in sample.labels.items() if key not in ("source", "services")),
        ): sample.value
        for sample in Metrics(scrape({**STATUS, "sources": sources}, {}).decode()).samples
        if sample.name.startswith("lb_consul_")
    }


async def test_discovery_as_metrics():
    """The metrics say what status says: state, instances, what is held, and what was asked and failed."""
    async with FakeConsul() as fake:
        await fake.put("web", [entry(name, address=f"10.0.0.{n}") for n, name in enumerate("abc", 1)])
        async with Discovering(fake.address, {"web": "web"}) as found:
            await found.shows("n1/a", "n1/b", "n1/c")
            await found.is_in("ok")
            samples = consul(found.discovery.status())
            assert samples["lb_consul_state", "ok"] == 1
            assert samples["lb_consul_instances", "passing"] == 3
            assert samples["lb_consul_held_instances",] == 0
            assert samples["lb_consul_polls_total",] >= 1
            await fake.put("web", [])
            await found.is_in("held")
            samples = consul(found.discovery.status())
            assert (samples["lb_consul_state", "ok"], samples["lb_consul_state", "held"]) == (0, 1)
            assert samples["lb_consul_held_instances",] == 3


@pytest.mark.parametrize("rows", [[], [{"name": "file:lb.yaml", "state": "ok"}]])
def test_other_sources_are_left_out(rows):
    """What is no discovery has no such metrics."""
    assert consul(rows) == {}


def test_errors_by_kind():
    """Errors are counted by their kind."""
    row = {
        "name": "consul:web",
        "services": ["web"],
        "state": "denied",
        "counts": {},
        "held": None,
        "age_s": None,
        "polls": 4,
        "wakes": 0,
        "resets": 1,
        "errors": {"denied": 3},
    }
    samples = consul([row])
    assert samples["lb_consul_errors_total", "denied"] == 3
    assert samples["lb_consul_resets_total",] == 1
    assert ("lb_consul_answer_age_seconds",) not in samples
