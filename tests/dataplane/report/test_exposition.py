"""Prometheus text in slices: the same as in one go, and the loop has its turn in between."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from dataplane.report.exposition import SLICE, exposition

LABELS = st.dictionaries(st.sampled_from(["service", "backend"]), st.text(max_size=8), max_size=2)
SAMPLES = st.lists(st.tuples(LABELS, st.integers(0, 1 << 40)), max_size=SLICE * 2 + 1)


def families(kind, name, samples):
    """Return one family in the form in which it travels."""
    sample = f"{name}_total" if kind == "counter" else name
    return [(kind, name, f"What {name} is", [(sample, labels, value) for labels, value in samples])]


@given(st.lists(st.tuples(st.sampled_from(["counter", "gauge"]), SAMPLES), max_size=6))
@settings(deadline=None, max_examples=50)
def test_however_it_is_cut(parts):
    """Each family is there once, with its type and the samples of all parts in their order."""
    told = [families(kind, f"lb_{kind}", samples) for kind, samples in parts]
    text = asyncio.run(exposition(told)).decode()
    found = {family.type: family for family in text_string_to_metric_families(text)}
    assert text.count("# TYPE") == text.count("# HELP") == len({kind for kind, _ in parts})
    for kind in {kind for kind, _ in parts}:
        expected = [one for other, samples in parts if other == kind for one in samples]
        assert [(sample.labels, sample.value) for sample in found[kind].samples] == expected


async def test_the_loop_has_its_turn():
    """After each part and each slice of a large one, others run."""
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    small = families("gauge", "lb_gauge", [({}, 1)])
    large = families("gauge", "lb_gauge", [({}, 1)] * SLICE * 10)
    await exposition([small] * 20)
    assert turns >= 20
    before = turns
    await exposition([large])
    assert turns - before >= 10
    task.cancel()
