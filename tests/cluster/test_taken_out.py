"""A node that is taken out in good order under load: no client that comes afterwards fails, and whoever waits is told when.

A router that has no table of connections moves what is under way when a route goes (test_ecmp.py): what was open at that
moment may fail, is counted, and is all that may fail.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.aftermath import HEADS, Aftermath, unexcused
from tests.support.cluster import Bed, Node
from tests.support.episodes import drain, enable, more, start_again, upgrade
from tests.support.figures import print_table
from tests.support.namespaces import needs_namespaces
from tests.support.wait import wait_for

pytestmark = [
    needs_namespaces,
    *map(pytest.mark.needs, ("consul", "bird", "exabgp")),
    pytest.mark.timeout(300),
]

RATE = 300.0
FLOWS = 60
ROWS: list[list[str]] = []


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    """A cluster, which each test leaves whole."""
    ROWS.clear()
    with Bed() as made:
        yield made
    print_table("taken-out", f"A node is taken out, at {RATE:g} connections/s", HEADS, ROWS)


def assert_stays_out(bed: Bed, node: Node) -> None:
    """Hold that a drained node comes up drained, whatever happened to its power, and has clients when it is enabled."""
    start_again(node)
    with node.command("ready") as ready:
        wait_for(lambda: ready.poll() is not None, "an answer")
        assert "drained" in ready.output
    with bed.load(rate=RATE) as load:
        more(load)
    assert node.inside not in {answer.partition("@")[2] for answer in load.report.answered_by}
    enable(bed, node)
    with bed.load(rate=RATE) as load:
        load.wait_until(lambda now: any(node.inside in answer for answer in now.answered_by), "its clients")
    assert load.report.failures == {}


def test_drained_and_switched_off(bed):
    """Who comes after the router has been told is served by others; switched off and on, the node stays out until it is enabled."""
    node = bed.middle()
    with bed.load(rate=RATE, flows=FLOWS) as load:
        load.wait_flows()
        more(load)
        window = drain(bed, node)
        more(load)
        node.off()
        more(load)
    after = Aftermath.of(bed, load, window.begun, window.over)
    ROWS.append(after.row("drained, then switched off", node.name))
    assert unexcused(after.visits, [(window.begun, window.over)]) == []
    assert after.failed_after == []
    assert set(after.failed_before) <= {"reset", "short"}
    assert set(after.lost_flows) <= {node.name}
    assert set(after.served_after) == {other.name for other in bed.others(node)}
    assert_stays_out(bed, node)


def test_upgraded_one_after_the_other(bed):
    """The documented loop over all nodes (drain, restart, enable) loses nothing but what was under way as a route changed."""
    changes = []
    with bed.load(rate=RATE) as load:
        more(load)
        for node in bed.nodes:
            changes.append(drain(bed, node))
            upgrade(node)
            changes.append(enable(bed, node))
            more(load)
    assert unexcused(load.report.visits, [(each.begun, each.over) for each in changes]) == []
    assert set(load.report.failures) <= {"reset", "short"}
    seconds = load.report.visits[-1].begun - load.report.visits[0].begun
    ROWS.append(
        [
            "all upgraded, one after the other",
            f"{seconds:.1f} in all",
            "",
            "",
            f"{load.report.failed} of {load.report.started}",
            "0",
            "",
        ]
    )
