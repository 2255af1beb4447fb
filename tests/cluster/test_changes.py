"""One change for all nodes, under load: taken by all, tried by one first, taken back when that one's clients fare worse."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cluster import Bed, Node, document
from tests.support.episodes import TO, held, limit, written
from tests.support.figures import print_table
from tests.support.load import Load
from tests.support.namespaces import needs_namespaces
from tests.support.wait import wait_for

pytestmark = [
    needs_namespaces,
    *map(pytest.mark.needs, ("consul", "bird", "exabgp")),
    pytest.mark.timeout(300),
]

RATE = 300.0
ROWS: list[list[str]] = []
NOWHERE = [{"id": "wrong", "address": "10.88.0.1:9"}]
"""A backend that refuses: nobody listens there."""


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    """A cluster, of which each test leaves all nodes in one state."""
    ROWS.clear()
    with Bed() as made:
        yield made
    print_table(
        "changes", f"Changes at {RATE:g} connections/s", ["what happened", "clients that failed"], ROWS
    )


@pytest.fixture
def load(bed: Bed) -> Iterator[Load]:
    """Clients beyond the router, who have come to every node already."""
    with bed.load(rate=RATE) as load:
        nodes = {node.inside for node in bed.nodes}
        load.wait_until(
            lambda now: {answer.partition("@")[2] for answer in now.answered_by} == nodes,
            "clients of each node",
        )
        yield load


def harmed(node: Node) -> int:
    """Return how many clients a node's data plane has let down since it started."""
    _, body = node.dataplane("/v1/status")
    found: int = body["services"]["web"]["totals"]["harmed"]
    return found


def test_change_for_all(bed, load):
    """`apply --wait` returns when every node runs the change, and no client notices it."""
    node = bed.nodes[0]
    told = node.control("apply", written(node, limits={"connections": 5001}), *TO, "--wait")
    assert [limit(each) for each in bed.nodes] == [5001] * 3, told
    load.stop()
    assert load.report.failures == {}


def test_node_that_is_gone_is_named(bed, load):
    """Cut off from Consul, a node serves on and knows how old its picture is; the others show it as gone, and do not wait for it."""
    node, other = bed.nodes[2], bed.nodes[0]
    try:
        node.link("eth2", "down")
        wait_for(lambda: presence(other, node) == "gone", "the node to be shown as gone", deadline_s=90)
        other.control("apply", written(other, limits={"connections": 5002}), *TO, "--wait")
        assert [limit(each) == 5002 for each in bed.nodes] == [True, True, False]
        _, picture = node.daemon("/v1/nodes")
        assert len(picture["nodes"]) == 3
        assert picture["age_s"] > other.daemon("/v1/nodes")[1]["age_s"]
    finally:
        node.link("eth2", "up")
    wait_for(lambda: limit(node) == 5002, "the node to take what it missed", deadline_s=120)
    wait_for(lambda: presence(other, node) == "live", "the node to be shown as live", deadline_s=120)
    load.stop()
    assert load.report.failures == {}


def presence(seer: Node, seen: Node) -> str:
    """Return what a node shows of another."""
    _, picture = seer.daemon("/v1/nodes")
    found: str = next(each["presence"] for each in picture["nodes"] if each["name"] == seen.name)
    return found


def test_canary_that_goes(bed, load):
    """A change that is good is taken by the canary, then by all, and no client notices it."""
    node = bed.nodes[1]
    file = written(node, limits={"connections": 5003})
    told = node.control("apply", file, *TO, "--canary", bed.nodes[0].name, "--observe", "5s", "--wait")
    assert "node1" in told
    assert held(bed) == document(limits={"connections": 5003})
    assert [limit(each) for each in bed.nodes] == [5003] * 3
    load.stop()
    assert load.report.failures == {}


def test_canary_that_does_not(bed, load):
    """A change that is bad is taken back by itself: only clients of the canary fail, and all nodes run what they ran before."""
    canary, *others = bed.nodes
    before, limits = held(bed), [limit(each) for each in bed.nodes]
    harm = [harmed(each) for each in bed.nodes]
    file = written(others[0], backends=NOWHERE, health={"active": {"type": "none"}})
    with others[0].command(
        "apply", file, *TO, "--canary", canary.name, "--observe", "30s", "--wait"
    ) as apply:
        assert apply.wait() == 1, apply.output
        assert "failed" in apply.output
        assert "taken back" in apply.output
    assert held(bed) == before
    wait_for(lambda: [limit(each) for each in bed.nodes] == limits, "the canary to run what it ran before")
    load.stop()
    harm = [harmed(each) - was for each, was in zip(bed.nodes, harm, strict=True)]
    assert harm[0] >= load.report.failed > 0
    assert harm[1:] == [0, 0]
    with bed.load(rate=RATE) as later:
        later.wait_progress(300)
    assert later.report.failures == {}
    ROWS.append(["one of three takes a bad change", f"{load.report.failed} of {load.report.started}"])


def test_leader_of_consul_killed_in_the_middle_of_a_canary(bed, load):
    """With a new leader the canary goes on to its end; no client notices any of it."""
    node = bed.nodes[2]
    file = written(node, limits={"connections": 5004})
    with node.command(
        "apply", file, *TO, "--canary", "1", "--observe", "8s", "--wait", "--timeout", "60s"
    ) as apply:
        wait_for(lambda: 5004 in [limit(each) for each in bed.nodes], "the canary to run")
        leader = bed.registry.leader()
        leader.kill()
        assert apply.wait(90) == 0, apply.output
    assert [limit(each) for each in bed.nodes] == [5004] * 3
    assert held(bed) == document(limits={"connections": 5004})
    leader.start()
    bed.registry.wait_for_leader()
    load.stop()
    assert load.report.failures == {}
