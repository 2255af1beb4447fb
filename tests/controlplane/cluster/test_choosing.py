"""Which nodes a canary takes."""

from __future__ import annotations

import pytest

from controlplane.cluster.choosing import Fresh, choose, followers
from controlplane.cluster.looking import Keys
from controlplane.core.node_record import NodeRecord
from controlplane.core.nodes import Entry, picture_of
from controlplane.errors import HeldBackError

AT = "2027-01-15T08:00:00.000Z"
KEYS = Keys("lb")


def picture(**nodes):
    """Return a picture of these; False: it is gone."""
    entries = []
    for name, told in nodes.items():
        record = NodeRecord(name, **{"at": AT, "key": "lb", "converged": True, **(told or {})})
        entries.append(Entry(name, record.encode(), None if told is False else "s", 1))
    return picture_of("edge", entries, now=0.0, wall=1_800_000_000.0)


SEEN = picture(d={}, c={"converged": False}, b={"key": "other"}, a={}, e=False, f={"error": "no"})


def test_so_many_are_the_first_that_run_what_they_should():
    """By name: those that are gone, follow something else or are behind are none."""
    assert followers(SEEN, KEYS) == {"a", "c", "d", "f"}
    assert choose(SEEN, KEYS, 1) == ("a",)
    assert choose(SEEN, KEYS, 2) == ("a", "d")


def test_named_ones_are_those_that_are_named():
    """In that order, also one that is behind."""
    assert choose(SEEN, KEYS, ("f", "a")) == ("f", "a")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (3, "only 2 nodes of edge run what they should: a, d"),
        (4, "4 live nodes of edge follow consul-kv:lb"),
        (("a", "b", "e"), "is called b, e; there are: a, c, d, f"),
    ],
)
def test_those_that_are_not_there(wanted, said):
    """Nothing was changed."""
    with pytest.raises(HeldBackError, match=f"nothing was changed: .*{said}"):
        choose(SEEN, KEYS, wanted)


def test_nodes_that_have_told_of_themselves():
    """All of those that are asked for and live; one that has gone is not waited for."""
    fresh = Fresh(["a", "b"])
    assert not fresh.has_told(picture(a={}, b={}))
    later = {"at": AT.replace("00.000", "05.000")}
    assert not fresh.has_told(picture(a=later, b={}))
    assert fresh.has_told(picture(a=later, b=later))
    assert fresh.has_told(picture(a=later, b=False))
