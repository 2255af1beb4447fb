"""What a node tells of itself: it comes back as it was, and what others write is checked."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.node_record import (
    MAX_BYTES,
    REST,
    Draining,
    FirstByte,
    NodeRecord,
    Outcomes,
)

AT = "2026-01-02T03:04:05.678Z"
FULL = NodeRecord(
    node="n1",
    at=AT,
    started=AT,
    livelb="0.1.0",
    address="http://10.0.0.1:9100",
    left=AT,
    key="lb/edge.yaml",
    content="0" * 64,
    canary="c1",
    generation=7,
    hash="abc",
    converged=True,
    error="services.web: wrong",
    ready=True,
    reason="draining",
    since=AT,
    drain=Draining("withdrawn", "alice", AT),
    table_hashes={"web": "1234"},
    active=9,
    variables={"NODE_IP": "10.0.0.1"},
    uses=("NODE_IP",),
    share=3,
    outcomes={"web": Outcomes(10, 1, 2, 3, 4, FirstByte(5, 6.5, {"2.5": 4, "+Inf": 1}))},
)


def raw(**changes):
    """Return a record with some fields as somebody else may have written them."""
    return json.dumps({"version": 1, "node": "n1", "at": AT, **changes}).encode()


def test_it_comes_back_as_it_was():
    """Every field, and those that nothing is known of."""
    assert all(getattr(FULL, each.name) for each in fields(NodeRecord))
    assert NodeRecord.parse(FULL.encode()) == FULL
    assert NodeRecord.parse(NodeRecord(node="n1", at=AT).encode()) == NodeRecord(node="n1", at=AT)


def test_versions_mix():
    """What a newer one says besides is ignored, and what an older one does not say is not known."""
    assert NodeRecord.parse(raw(moon="full", drain={"phase": "x", "since": AT, "why": 1})) == NodeRecord(
        node="n1", at=AT, drain=Draining("x", "", AT)
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"", "no JSON"),
        (b"[" * 100_000, "bytes"),
        (b"[" * 50_000, "no JSON"),
        (b"[]", "the record must be an object"),
        (b"{}", "version is None"),
        (b"\xff", "no JSON"),
        (raw(version=2), "version is 2"),
        (json.dumps({"version": 1, "at": AT}).encode(), "node is missing"),
        (raw(node="../n1"), "node must be"),
        (raw(at="yesterday"), "at must be"),
        (raw(at="2026-13-02T03:04:05Z"), "at must be"),
        (raw(content="A" * 64), "content must be"),
        (raw(generation=-1), "generation must be"),
        (raw(generation=True), "generation must be"),
        (raw(generation=1.5), "generation must be"),
        (raw(ready="yes"), "ready must be"),
        (raw(hash="x" * 256), "hash must be"),
        (raw(error=["x"]), "error must be"),
        (raw(uses="NODE_IP"), "uses must be"),
        (raw(uses=[1]), "uses must be"),
        (raw(table_hashes=["x"]), "table_hashes must be"),
        (raw(table_hashes={"web": 1}), "table_hashes.web must be"),
        (raw(drain={"phase": "x"}), "drain.since must be"),
        (raw(outcomes={"web": 1}), "outcomes.web must be"),
        (raw(outcomes={"web": {"connections": -1}}), "outcomes.web.connections must be"),
        (raw(outcomes={"web": {"first_byte_ms": {"sum": float("nan")}}}), "first_byte_ms.sum must be"),
        (raw(outcomes={"web": {"first_byte_ms": {"sum": 10**400}}}), "first_byte_ms.sum must be"),
        (raw(outcomes={"web": {"first_byte_ms": {"sum": True}}}), "first_byte_ms.sum must be"),
        (raw(outcomes={"web": {"first_byte_ms": {"buckets": {"1": -1}}}}), "first_byte_ms.buckets.1 must be"),
    ],
)
def test_what_is_no_record_is_refused(value, said):
    """With the reason, which names the field."""
    with pytest.raises(ValueError, match=said):
        NodeRecord.parse(value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.sampled_from([each.name for each in fields(NodeRecord)]),
)
def test_anything_is_a_record_or_refused(value, name):
    """Nothing else than a ValueError comes of it, and what is taken can be said again."""
    try:
        record = NodeRecord.parse(raw(**{name: value}))
    except ValueError:
        return
    assert NodeRecord.parse(record.encode()) == record


def test_nothing_reaches_a_terminal_that_could_rewrite_it():
    """Control characters are blanks, on the way out and on the way in."""
    assert NodeRecord.parse(raw(reason="a\x1b[2Jb")).reason == "a [2Jb"
    with pytest.raises(ValueError, match=r"^outcomes\. \[2J must be"):
        NodeRecord.parse(raw(outcomes={"\x1b[2J": 1}))
    assert b"\\u001b" not in replace(FULL, error="a\x1b[2Jb").encode()


def test_names_that_are_no_text_can_be_told():
    """A file's name may have bytes that are no characters; the record is written all the same."""
    assert NodeRecord.parse(replace(FULL, error="lb\udcff.yaml").encode()).error is not None


def test_a_record_is_bounded():
    """Of ten thousand services the busiest are told one by one, and the others as one; nothing is lost of the sums."""
    outcomes = {
        f"service-{n:05}": Outcomes(n, 1, 0, 1, 2, FirstByte(n, 1.0, {"1": n})) for n in range(10_000)
    }
    tables = dict.fromkeys(outcomes, "a" * 16)
    many = replace(
        FULL,
        outcomes=outcomes,
        table_hashes=tables,
        variables={f"V{n}": "x" * 200 for n in range(100)},
        error="\x00" * 5000,
        reason="ü" * 5000,
        key="k" * 5000,
    )
    encoded = many.encode()
    assert len(encoded) <= MAX_BYTES
    told = NodeRecord.parse(encoded)
    assert {"service-09999", "service-09990", REST} <= told.outcomes.keys()
    assert "service-00001" not in told.outcomes
    assert sum(each.connections for each in told.outcomes.values()) == sum(range(10_000))
    assert sum(each.first_byte_ms.buckets["1"] for each in told.outcomes.values()) == sum(range(10_000))
    assert {"service-00000", REST} <= told.table_hashes.keys()
    other = replace(many, table_hashes={**tables, "service-09999": "b" * 16})
    assert NodeRecord.parse(other.encode()).table_hashes[REST] != told.table_hashes[REST]


def test_one_of_many_nodes_tells_less():
    """With a share of the room fewer services are told one by one; the sums are the same, and so are the tables' hashes."""
    outcomes = {f"service-{n:05}": Outcomes(n) for n in range(1_000)}
    many = replace(FULL, outcomes=outcomes, table_hashes=dict.fromkeys(outcomes, "a" * 16))
    whole, share = NodeRecord.parse(many.encode()), NodeRecord.parse(many.encode(room=0.1))
    assert len(share.outcomes) < len(whole.outcomes) / 5
    assert "service-00999" in share.outcomes
    assert sum(each.connections for each in share.outcomes.values()) == sum(range(1_000))
    assert share.table_hashes == whole.table_hashes


def test_numbers_are_no_news():
    """They change all the time; everything else is told at once."""
    assert FULL.without_numbers() == replace(FULL, at="x", active=1, outcomes={}).without_numbers()
    assert FULL.without_numbers() != replace(FULL, ready=False).without_numbers()
