"""Who has taken a content: each way not to have it, and which of them nobody needs to wait for."""

from __future__ import annotations

import pytest

from controlplane.core.arrival import Arrival, Awaited, Standing, arrivals
from controlplane.core.node_record import NodeRecord
from controlplane.core.nodes import Entry, picture_of

NEW, OLD = "a" * 64, "b" * 64
AT = "2027-01-15T08:00:00.000Z"
WALL = 1_800_000_000.0


def record(node="n1", content=NEW, **more):
    """Return the record of a node that has taken it."""
    return NodeRecord(node, AT, key="lb", content=content, converged=True, generation=7, **more)


def picture(*records, gone=()):
    """Return what Consul has; those in `gone` have no session."""
    entries = [Entry(each.node, each.encode(), None if each.node in gone else "s", 1) for each in records]
    return picture_of("edge", entries, now=0.0, wall=WALL)


def one(*records, before=None, nodes=None, gone=()):
    """Return how far the first node is."""
    return arrivals(Awaited("lb", NEW, nodes, before), picture(*records, gone=gone))[0]


@pytest.mark.parametrize(
    ("change", "standing", "why"),
    [
        ({}, Standing.RUNS, ""),
        ({"content": OLD}, Standing.BEHIND, "it has lb.yaml bbbbbbbbbbbb, not aaaaaaaaaaaa"),
        ({"content": None}, Standing.BEHIND, "it has nothing from this key, not aaaaaaaaaaaa"),
        ({"content": OLD, "error": "lb:3: no"}, Standing.REFUSED, "lb:3: no"),
        (
            {"content": OLD, "error": "in use; it is tried again"},
            Standing.BEHIND,
            "in use; it is tried again",
        ),
        ({"error": "lb:3: no"}, Standing.REFUSED, "lb:3: no"),
    ],
)
def test_a_live_node(change, standing, why):
    """As its record says."""
    assert one(record(**change)) == Arrival("n1", standing, why)


def test_a_node_whose_data_planes_do_not_run_it_yet():
    """It has it, and is waited for."""
    late = NodeRecord("n1", AT, key="lb", content=NEW, converged=False, generation=7)
    arrival = one(late)
    assert (arrival.standing, arrival.standing.is_settled) == (Standing.CONVERGING, False)
    assert arrival.why == "not all its data planes run generation 7"


def test_an_error_of_before_is_about_something_older():
    """It may not have read the new content yet."""
    refusing = record(content=OLD, error="lb:3: no")
    assert one(refusing, before={"n1": refusing}).standing is Standing.BEHIND
    assert one(refusing, before={"n1": record(content=OLD)}).standing is Standing.REFUSED


def test_a_node_of_another_key_will_never_have_it():
    """It is named, and not waited for."""
    arrival = one(NodeRecord("n1", AT, key="other", content=NEW, converged=True))
    assert (arrival.standing, arrival.why) == (Standing.ELSEWHERE, "it follows the key other")
    assert arrival.standing.is_settled


def test_who_has_gone_meanwhile_is_named():
    """And who was gone before is not."""
    live, gone = record("n1"), record("n2", OLD)
    seen = picture(live, gone, gone=["n2"])
    assert [each.node for each in arrivals(Awaited("lb", NEW), seen)] == ["n1"]
    named = arrivals(Awaited("lb", NEW, before={"n1": live, "n2": gone}), seen)
    assert named[1] == Arrival("n2", Standing.GONE, f"gone since {AT}")


def test_only_those_that_are_meant():
    """A canary's nodes; one that there never was is gone."""
    seen = picture(record("n1"), record("n2", OLD))
    assert [each.node for each in arrivals(Awaited("lb", NEW, ("n1",)), seen)] == ["n1"]
    assert one(record("n1"), nodes=("n9",)) == Arrival("n9", Standing.GONE, "there is no such node")


def test_a_record_that_cannot_be_read():
    """It hides nobody."""
    seen = picture_of("edge", [Entry("n1", b"{", "s", 1)], now=0.0, wall=WALL)
    arrival = arrivals(Awaited("lb", NEW, ("n1",)), seen)[0]
    assert arrival.standing is Standing.GONE
    assert arrival.why.startswith("its record cannot be read")
