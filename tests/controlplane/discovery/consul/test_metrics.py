from __future__ import annotations

import pytest

from controlplane.discovery.consul.metrics import consul_families
from tests.support.discovery import Discovering
from tests.support.fakeconsul import FakeConsul, entry


def scrape(sources):
    """Every sample of a scrape, by name and by the labels that tell it from its siblings."""
    return {
        (
            sample.name,
            *(value for key, value in sample.labels.items() if key not in ("source", "services")),
        ): sample.value
        for family in consul_families(sources)
        for sample in family.samples
    }


async def test_status_as_metrics():
    """The metrics say what status says: state, instances, what is held, and what was asked and failed."""
    async with FakeConsul() as consul:
        await consul.put("web", [entry(name, address=f"10.0.0.{n}") for n, name in enumerate("abc", 1)])
        async with Discovering(consul.address, {"web": "web"}) as found:
            await found.shows("n1/a", "n1/b", "n1/c")
            await found.is_in("ok")
            samples = scrape(found.discovery.status())
            assert samples["lb_consul_state", "ok"] == 1
            assert samples["lb_consul_instances", "passing"] == 3
            assert samples["lb_consul_held_instances",] == 0
            assert samples["lb_consul_polls_total",] >= 1
            await consul.put("web", [])
            await found.is_in("held")
            samples = scrape(found.discovery.status())
            assert (samples["lb_consul_state", "ok"], samples["lb_consul_state", "held"]) == (0, 1)
            assert samples["lb_consul_held_instances",] == 3


@pytest.mark.parametrize("rows", [[], [{"name": "file:lb.yaml", "state": "ok"}]])
def test_other_sources_are_left_out(rows):
    """What is no discovery has no such metrics."""
    assert scrape(rows) == {}


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
    samples = scrape([row])
    assert samples["lb_consul_errors_total", "denied"] == 3
    assert samples["lb_consul_resets_total",] == 1
    assert ("lb_consul_answer_age_seconds",) not in samples
