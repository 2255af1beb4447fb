"""A canary's record: read as it was written, and whatever else stands there is an error that says what."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from controlplane.core.canary_record import (
    MAX_CONTENT_BYTES,
    CanaryRecord,
    End,
    digest_of_content,
    parse_record,
    seconds_of,
)

CONTENT = "version: 1 # größer\n"
RECORD = CanaryRecord(
    id="4f1c",
    by="ann on hill",
    since="2027-01-15T08:00:00.5Z",
    lasts_s=180.0,
    nodes=("n1", "n2"),
    observe_s=60.0,
    base="a" * 64,
    content_hash=digest_of_content(CONTENT.encode()),
    content=CONTENT,
)


@pytest.mark.parametrize(
    "record", [RECORD, replace(RECORD, content=None, ended=End("promoted", "as good", RECORD.since))]
)
def test_what_was_written_is_read(record):
    """With its content, or with its end."""
    assert parse_record(record.encode()) == record


def test_fields_of_later_versions_are_passed_over():
    """Versions can be mixed."""
    assert parse_record(json.dumps({**json.loads(RECORD.encode()), "colour": 1}).encode()) == RECORD


def test_the_hash_is_the_contents():
    """Whatever the record says of it."""
    wrong = json.dumps({**json.loads(RECORD.encode()), "content_hash": "b" * 64}).encode()
    assert parse_record(wrong).content_hash == RECORD.content_hash


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "version"),
        ({"id": "a b"}, "id"),
        ({"id": 7}, "id"),
        ({"by": "x" * 201}, "by"),
        ({"since": "yesterday"}, "since"),
        ({"since": "2027-01-15T08:00:00"}, "time zone"),
        ({"since": "2027-01-15\x1b08:00:00Z"}, "since"),
        ({"lasts_s": -1}, "lasts_s"),
        ({"lasts_s": True}, "lasts_s"),
        ({"lasts_s": 1e9}, "lasts_s"),
        ({"lasts_s": float("nan")}, "lasts_s"),
        ({"nodes": []}, "nodes"),
        ({"nodes": "n1"}, "nodes"),
        ({"nodes": ["n1", 2]}, "no name"),
        ({"nodes": ["n"] * 1001}, "nodes"),
        ({"base": "xyz"}, "base"),
        ({"content": None}, "either content or ended"),
        ({"content": ""}, "content"),
        ({"content": "\ud800"}, "content"),
        ({"content": "x" * (MAX_CONTENT_BYTES + 1)}, "larger"),
        ({"ended": {"how": "promoted", "why": "", "at": RECORD.since}}, "either content or ended"),
        ({"content": None, "ended": {"how": "Not One", "why": "", "at": RECORD.since}}, "how"),
        ({"content": None, "ended": []}, "ended"),
    ],
)
def test_what_is_none_is_refused(change, said):
    """With a reason that names the field."""
    raw = json.dumps({**json.loads(RECORD.encode()), **change}).encode()
    with pytest.raises(ValueError, match=said):
        parse_record(raw)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_record_at_all(raw):
    """Anybody may write there."""
    with pytest.raises(ValueError, match="it is no"):
        parse_record(raw)


def test_nobody_prints_control_characters():
    """They could rewrite a terminal."""
    assert parse_record(replace(RECORD, by="a\x1b[2Jb").encode()).by == "a [2Jb"


def test_moments_are_seconds():
    """Since the epoch."""
    assert seconds_of("2027-01-15T08:00:00.5Z") == 1_800_000_000.5
