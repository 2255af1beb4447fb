"""The text of metrics."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from dataplane.report.exposition import SLICE, exposition

LABELS = st.dictionaries(st.sampled_from(["service", "backend"]), st.text(max_size=8), max_size=2)
SAMPLES = st.lists(st.tuples(LABELS, st.integers(0, 1 << 40)), max_size=SLICE * 2 + 1)


def family(kind, name, samples):
    """Return one family."""
    sample = f"{name}_total" if kind == "counter" else name
    return kind, name, f"What {name} is", ((sample, labels, value) for labels, value in samples)


@given(SAMPLES, SAMPLES)
@settings(deadline=None, max_examples=50)
def test_however_it_is_cut(counters, gauges):
    """Each family with samples is there once, with its type and all samples in their order."""
    told = {"counter": counters, "gauge": gauges}
    families = [family(kind, f"lb_{kind}", samples) for kind, samples in told.items()]
    text = asyncio.run(exposition(families)).decode()
    found = {family.type: family for family in text_string_to_metric_families(text)}
    assert text.count("# TYPE") == text.count("# HELP") == len(found)
    assert found.keys() == {kind for kind, samples in told.items() if samples}
    for kind, family_ in found.items():
        assert [(sample.labels, sample.value) for sample in family_.samples] == told[kind]


async def test_the_loop_has_its_turn():
    """After each family and each slice of a large one, others run."""
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await exposition(family("gauge", f"lb_{number}", [({}, 1)]) for number in range(20))
    assert turns >= 20
    before = turns
    await exposition([family("gauge", "lb_gauge", [({}, 1)] * SLICE * 10)])
    assert turns - before >= 10
    task.cancel()
