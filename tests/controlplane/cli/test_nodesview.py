"""What `nodes` shows: what is wrong first, in words that say what to do; then a line for each node."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console

from controlplane.cli.nodesview import view
from controlplane.core.node_record import Draining, NodeRecord
from controlplane.core.nodes import Entry, picture_of, seconds_of

AT = "2026-01-02T03:04:05.000Z"
NOW = datetime(2026, 1, 2, 3, 6, 5, tzinfo=UTC)
BASE = NodeRecord(
    node="n0",
    at=AT,
    livelb="0.1.0",
    content="2" * 64,
    hash="h",
    converged=True,
    ready=True,
    since=AT,
    active=7,
)


def entry(name, *, session="s", **changes):
    """Return a node's key."""
    return Entry(name, replace(BASE, node=name, **changes).encode(), session, 1)


def shown(*entries, width=200, **more):
    """Return what is printed of these nodes."""
    picture = picture_of("edge", entries, now=0.0, wall=seconds_of(AT) + 120.0)
    told = {"known": True, "node": "a", "error": None, "error_since": None, **more}
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    console.print(view({**picture.report(0.0), **told}, NOW))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_when_all_is_well_there_is_a_line_for_each():
    """And one that says so."""
    head, _, titles, *rows = shown(entry("a"), entry("b"))
    assert head == "cluster edge: 2 of 2 nodes live, seen from a; all live ones run the same"
    assert titles.split() == ["node", "is", "runs", "ready", "for", "clients", "lb.yaml", "version"]
    assert [row.split() for row in rows] == [
        [name, "live", "ok", "yes", "2m", "7", "2" * 12, "0.1.0"] for name in "ab"
    ]


def test_what_is_wrong_comes_first_and_says_what_to_do():
    """Each with the node's name; who is gone with the time, and what that may mean."""
    lines = shown(
        entry("a"),
        entry("b"),
        entry("c", content="1" * 64, error="line 3: wrong"),
        entry("d", table_hashes={"web": "x"}),
        entry("e", table_hashes={"web": "y"}),
        entry("f", ready=False, reason="main: draining"),
        entry("g", session=None),
        Entry("h", b"\xff", "s", 1),
    )
    told = lines[1 : lines.index("")]
    assert told == [
        "c: behind: has lb.yaml 111111111111, not 222222222222: line 3: wrong",
        "d: disagrees in table_hash of web: x, unlike e",
        "e: disagrees in table_hash of web: y, unlike d",
        "f: not ready since 2026-01-02 03:04:05 UTC (2m ago): main: draining",
        (
            "g: gone since 2026-01-02 03:04:05 UTC (2m ago): its daemon was killed, the machine is off, or it does not reach "
            "Consul; its data planes may still serve"
        ),
        "h: its record cannot be read: no JSON; see: consul kv get livelb/edge/nodes/h",
    ]
    assert lines[0].endswith("; not all run the same")
    rows = {row.split()[0]: row.split()[1:4] for row in lines[lines.index("") + 2 :]}
    assert rows["c"] == ["live", "behind", "yes"]
    assert rows["d"] == ["live", "disagrees", "yes"]
    assert rows["f"] == ["live", "ok", "no"]
    assert rows["g"] == ["gone", "-", "-"]
    assert rows["h"] == ["unreadable", "-", "-"]


def test_what_somebody_wants_is_no_trouble():
    """A drained node is not ready by intent, one that has left ended in good order, and a canary is another content."""
    lines = shown(
        entry("a"),
        entry("b", ready=False, reason="drained", drain=Draining("withdrawn", "alice", AT)),
        entry("c", left=AT, session=None),
        entry("d", canary="0123456789abcdef", content="3" * 64),
    )
    assert lines[1 : lines.index("")] == [
        "b: drained by alice since 2026-01-02 03:04:05 UTC (2m ago): withdrawn",
        "c: left since 2026-01-02 03:04:05 UTC (2m ago): its daemon has ended in good order",
        "d: runs canary 0123456789ab",
    ]
    assert lines[-1].split()[:3] == ["d", "live", "canary"]


def test_an_old_picture_says_how_old_and_why():
    """And that nothing else has changed."""
    lines = shown(entry("a"), error="unreachable: connection refused", error_since=AT, age_s=125.0)
    assert lines[1] == (
        "this picture is 2m old: unreachable: connection refused, for 2m; what runs goes on without Consul"
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"known": False, "error": "timeout: no answer"},
            "cluster edge: nothing is known of its nodes yet: timeout: no answer",
        ),
        (
            {"known": False},
            "cluster edge: nothing is known of its nodes yet: Consul has not answered",
        ),
        (
            {},
            "cluster edge: no node has ever joined it; a node joins when its lb.yaml says cluster.name: edge",
        ),
    ],
)
def test_nothing_is_said_to_be_nothing(more, said):
    """Not known is another thing than nobody there."""
    assert shown(**more) == [said]


def test_a_table_fits_a_terminal():
    """Of eighty columns."""
    lines = shown(entry("a-rather-long-name-of-a-node"), width=80)
    assert max(map(len, lines)) <= 80


def test_what_others_wrote_cannot_rewrite_the_terminal():
    """A record may say anything; its control characters are gone, and those of names are shown."""
    assert "\x1b" not in "\n".join(shown(Entry("a\x1b[2J", b"x", "s", 1)))
