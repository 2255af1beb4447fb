"""A node that is lost in each way there is, under load: its own flows go with it, and new clients are served by the others.

With three next hops in a plain group, the second one's leaving moves no flow of the others (test_ecmp.py): so it is the one
that is lost here, and whatever else fails is not the router's doing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support import episodes
from tests.support.aftermath import HEADS, Aftermath
from tests.support.cluster import KEY, Bed, Node, document
from tests.support.episodes import limit
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
HOLD_S = 9
ROWS: list[list[str]] = []


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    """A cluster, which each test leaves whole."""
    ROWS.clear()
    with Bed(workers=2, hold_s=HOLD_S) as made:
        yield made
    print_table("lost-nodes", f"A node is lost, at {RATE:g} connections/s", HEADS, ROWS)


def lose(bed: Bed, what: str, change: Callable[[Node], None]) -> tuple[Node, Aftermath]:
    """Have something happen to a node under load; return it and what clients met, up to well after the router knew."""
    node = bed.middle()
    with bed.load(rate=RATE, flows=FLOWS) as load:
        load.wait_flows()
        episodes.more(load)
        window = episodes.lose(bed, node, change)
        episodes.more(load)
    after = Aftermath.of(bed, load, window.begun, window.over)
    ROWS.append(after.row(what, node.name))
    return node, after


def assert_lost(node: Node, after: Aftermath, others: list[Node]) -> None:
    """Hold what is true whichever way a node is lost."""
    assert after.failed_ahead == []
    assert after.lost_flows == {node.name: after.flows[node.name]}
    assert after.failed_after == []
    assert set(after.served_after) == {other.name for other in others}


def test_power_cut(bed):
    """A node that falls silent takes its flows along; new clients are served by others when BGP's hold time is over."""
    node, after = lose(bed, "power cut", Node.off)
    assert_lost(node, after, bed.others(node))
    episodes.find(bed, node, episodes.start_again)


def test_killed(bed):
    """A node whose programs are killed is left by the router at once: its kernel ends their connections, BGP's as well."""
    node, after = lose(bed, "programs killed", Node.kill)
    assert_lost(node, after, bed.others(node))
    episodes.find(bed, node, episodes.start_again)


def test_frozen(bed):
    """A node whose programs stop, while its kernel goes on to accept, is left by the router when BGP's hold time is over."""
    node, after = lose(bed, "programs frozen", Node.freeze)
    assert_lost(node, after, bed.others(node))
    episodes.find(bed, node, Node.thaw)


def test_cut_off_from_the_router(bed):
    """A node whose link to the router is down loses its flows, and has clients again when the link is back."""
    node, after = lose(bed, "link to the router down", lambda node: node.link("eth0", "down"))
    assert_lost(node, after, bed.others(node))
    node.link("eth0", "up")
    bed.wait_routed()
    with bed.load(rate=RATE) as load:
        load.wait_until(lambda now: any(node.inside in answer for answer in now.answered_by), "its clients")
    assert load.report.failures == {}


def test_cut_off_from_consul(bed):
    """A node that cannot reach Consul serves on with what it has; a change reaches the others, and it when it can again."""
    node = bed.nodes[0]
    with bed.load(rate=RATE, flows=FLOWS) as load:
        load.wait_flows()
        node.link("eth2", "down")
        bed.registry.put_document(KEY, document(limits={"connections": 5000}))
        wait_for(
            lambda: all(limit(other) == 5000 for other in bed.others(node)), "the others to take the change"
        )
        load.wait_progress(300, FLOWS)
        assert limit(node) != 5000
        node.link("eth2", "up")
        wait_for(lambda: limit(node) == 5000, "the node to take what it missed", deadline_s=120)
    assert load.report.failures == {}
    assert {bed.node_of(answer) for answer in load.report.answered_by} == set(bed.nodes)
