"""The picture: who is live, gone, behind, or disagrees in what."""

from __future__ import annotations

from dataclasses import replace

import pytest

import schemas.nodes
from controlplane.core.node_record import REST, Draining, NodeRecord
from controlplane.core.nodes import (
    FORGET_S,
    Entry,
    Presence,
    forgotten,
    news,
    picture_of,
    seconds_of,
    text_of,
)

AT = "2026-01-02T03:04:05.000Z"
WALL = seconds_of(AT) + 60.0
OLD, NEW = "1" * 64, "2" * 64
BASE = NodeRecord(
    node="n0", at=AT, livelb="1", key="lb/edge", content=NEW, generation=5, hash="h", converged=True
)


def entry(name, *, session="s", **changes):
    """Return a node's key."""
    return Entry(name, replace(BASE, node=name, **changes).encode(), session, 1)


def picture(*entries, **options):
    """Return the picture of these keys."""
    return picture_of("edge", entries, now=100.0, wall=WALL, **options)


def views(*entries, **options):
    """Return the nodes by name."""
    return {each.name: each for each in picture(*entries, **options).nodes}


def test_equal_nodes_are_one_picture():
    """Nobody is behind, nobody disagrees; generations are each node's own."""
    seen = picture(entry("b", generation=9), entry("a"))
    assert [each.name for each in seen.nodes] == ["a", "b"]
    assert [(each.presence, each.behind, each.disagrees) for each in seen.nodes] == [
        (Presence.LIVE, None, ())
    ] * 2
    assert seen.converged
    assert seen.named("a").is_live
    assert seen.named("z") is None


def test_who_is_gone_is_shown_since_it_was_heard_last():
    """Its session has ended: no earlier than it wrote, and when that was seen, then."""
    assert views(entry("a", session=None))["a"].since == AT
    seen = views(entry("a", session=None), seen_gone={"a": WALL - 1})["a"]
    assert (seen.presence, seen.since) == (Presence.GONE, text_of(WALL - 1))


@pytest.mark.parametrize("said", [{}, {"left": "9999-12-31T23:59:59.999999Z"}])
def test_nobody_is_gone_since_a_moment_to_come(said):
    """Any moment may be written there, the last one that there is as well: then it is not known."""
    seen = views(entry("a", session=None, **{"at": "9999-12-31T23:59:59.999999Z", **said}))["a"]
    assert (seen.presence, seen.since) == (Presence.LEFT if said else Presence.GONE, None)


def test_who_has_left_said_so():
    """That holds whether its session has ended yet or not."""
    for session in ("s", None):
        seen = views(entry("a", session=session, left=AT))["a"]
        assert (seen.presence, seen.since) == (Presence.LEFT, AT)


def test_who_is_gone_for_a_day_is_forgotten():
    """It is not shown, and its key may go; live nodes and what cannot be read stay, however old."""
    entries = [
        entry("a", session=None),
        entry("b"),
        entry("c", session=None, left=AT),
        Entry("d", b"x", None, 1),
    ]
    later = WALL + FORGET_S
    assert [each.name for each in picture_of("edge", entries, now=0.0, wall=later).nodes] == ["b", "d"]
    assert [each.node for each in forgotten(entries, later)] == ["a", "c"]
    assert forgotten(entries, WALL) == []


def test_a_bad_record_hides_nobody():
    """It is shown with what is wrong; so is one that is under another's name."""
    seen = views(entry("a"), Entry("b", b"\xff", "s", 1), Entry("c", entry("a").value, "s", 1))
    assert seen["a"].is_live
    assert (seen["b"].presence, seen["b"].problem) == (Presence.UNREADABLE, "no JSON")
    assert (seen["c"].presence, seen["c"].problem) == (Presence.UNREADABLE, "it is the record of a")


def test_gone_nodes_do_not_vote():
    """Two that are gone with the old content do not make the one that lives behind."""
    seen = picture(entry("a"), *(entry(name, session=None, content=OLD) for name in "bc"))
    assert seen.converged
    assert [each.name for each in seen.live()] == ["a"]


def test_the_key_says_who_is_behind():
    """What it holds counts, though most have not taken it; with the reason that the node gives."""
    seen = views(
        entry("a"),
        entry("b", content=OLD, error="line 3: wrong"),
        entry("c", content=None),
        wanted={"lb/edge": NEW},
    )
    assert seen["a"].behind is None
    assert seen["b"].behind == "has lb.yaml 111111111111, not 222222222222: line 3: wrong"
    assert seen["c"].behind == "has no lb.yaml from there, not 222222222222"


def test_without_the_key_most_say_who_is_behind():
    """Two of three have it; of two that differ, neither is right."""
    seen = views(entry("a"), entry("b"), entry("c", content=OLD))
    assert (seen["a"].behind, seen["c"].behind) == (None, "has lb.yaml 111111111111, not 222222222222")
    seen = picture(entry("a"), entry("b", content=OLD))
    assert [each.disagrees for each in seen.nodes] == [
        ("content: 222222222222, unlike b",),
        ("content: 111111111111, unlike a",),
    ]
    assert not seen.converged


def test_who_does_not_run_what_it_has_taken_is_behind():
    """A data plane that refuses it, or is away, is one node's matter: its hash is not compared."""
    seen = views(entry("a"), entry("b", converged=False, hash="other"))
    assert seen["b"].behind == "not all its data planes run generation 5"
    assert seen["b"].disagrees == ()


def test_a_canary_is_not_behind():
    """It has another content by intent, and is compared with those that have it, too."""
    seen = views(entry("a"), entry("b"), entry("c", content=OLD, canary="c1", hash="x"))
    assert (seen["c"].behind, seen["c"].disagrees) == (None, ())
    seen = views(entry("a"), *(entry(name, content=OLD, canary="c1", hash=name) for name in ("c", "d")))
    assert seen["c"].disagrees == ("hash: c, unlike d",)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"livelb": "2"}, "version: 2, unlike 1 on 2 nodes"),
        ({"key": "lb/other"}, "key: lb/other, unlike lb/edge on 2 nodes"),
        ({"key": None}, "key: none, unlike lb/edge on 2 nodes"),
        ({"hash": "x" * 64}, f"hash: {'x' * 12}, unlike h on 2 nodes"),
        ({"table_hashes": {"web": "y"}}, "table_hash of web: y, unlike t on 2 nodes"),
        ({"table_hashes": {REST: "y"}}, "table_hash of other services: y, unlike r on 2 nodes"),
    ],
)
def test_who_disagrees_is_told_in_what(changes, said):
    """The one that differs from most, not the others."""
    tables = {"table_hashes": {"web": "t", REST: "r"}}
    seen = views(entry("a", **tables), entry("b", **tables), entry("c", **(tables | changes)))
    assert seen["c"].disagrees == (said,)
    assert seen["a"].disagrees == seen["b"].disagrees == ()


def test_what_a_node_fills_in_makes_another_hash():
    """With other values from the node the hash is another by right; the sticky tables still have to be the same."""
    ours, theirs = (
        {"variables": {"NODE_IP": f"10.0.0.{n}", "NODE_NAME": str(n)}, "uses": ("NODE_IP",), "hash": str(n)}
        for n in (1, 2)
    )
    seen = picture(entry("a", **ours), entry("b", **theirs))
    assert seen.converged
    seen = picture(
        entry("a", **ours, table_hashes={"web": "1"}), entry("b", **theirs, table_hashes={"web": "2"})
    )
    assert seen.nodes[0].disagrees == ("table_hash of web: 1, unlike b",)
    seen = picture(entry("a", **ours | {"uses": ()}), entry("b", **theirs | {"uses": ()}))
    assert seen.nodes[0].disagrees == ("hash: 1, unlike b",)
    assert picture(entry("a", share=2, hash="x"), entry("b", share=3, hash="y")).converged


def test_a_picture_ages():
    """Its report says how old it is, and everything that was said."""
    report = picture(entry("a"), entry("b", session=None)).report(103.5)
    assert (report["cluster"], report["age_s"], report["live"], report["converged"]) == ("edge", 3.5, 1, True)
    assert [(each["name"], each["presence"]) for each in report["nodes"]] == [("a", "live"), ("b", "gone")]
    assert report["nodes"][0]["record"]["content"] == NEW


def test_nobody_is_no_agreement():
    """Without a live node nothing runs anything."""
    assert not picture().converged
    assert not picture(entry("a", session=None)).converged


def test_news_say_how_a_node_is_now():
    """Each change once, with what is wrong; not how long ago anybody was heard."""
    first = picture(entry("a"), entry("b"))
    assert news(None, first) == []
    second = picture(entry("a"), entry("b", converged=False), entry("c", livelb="2"), Entry("d", b"", "s", 1))
    assert news(first, second) == [
        ("b", "behind: not all its data planes run generation 5"),
        ("c", "disagrees in version: 2, unlike 1 on 2 nodes"),
        ("d", "its record cannot be read: no JSON"),
    ]
    assert news(second, picture(*(entry(name) for name in "abc"))) == [("b", "live"), ("c", "live")]
    assert news(second, second) == []


def test_reports_are_what_the_reference_says():
    """Its keys are those of the bodies that are documented, record included."""
    report = picture(entry("a")).report(100.0)
    by_daemon = {"node", "known", "error", "error_since"}
    assert report.keys() | by_daemon == schemas.nodes.Nodes.__annotations__.keys()
    (node,) = report["nodes"]
    assert node.keys() == schemas.nodes.Node.__annotations__.keys()
    assert node["record"].keys() == schemas.nodes.NodeRecord.__annotations__.keys()


def test_who_needs_somebody_is_named():
    """With a word; who is drained, or has left, is so because somebody wants it."""
    drain = Draining("drained", "alice", AT)
    seen = picture(
        entry("a", ready=True),
        entry("b", ready=True),
        entry("c", session=None),
        entry("d", converged=False),
        entry("e", ready=True, livelb="2"),
        entry("f", ready=False),
        entry("g", ready=False, drain=drain),
        entry("h", session=None, left=AT),
        Entry("i", b"", "s", 1),
    )
    assert seen.troubled() == [
        "c is gone",
        "d is behind",
        "e disagrees",
        "f is not ready",
        "i cannot be read",
    ]
