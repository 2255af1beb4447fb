"""What is known of a key's canary: whether one runs, and who is refused because of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.cluster.canaries import Ending, refuse_others, running, with_end
from controlplane.cluster.looking import Keys
from controlplane.core.canary_record import MAX_WHY_CHARS, CanaryRecord, digest_of_content, parse_record
from controlplane.discovery.consul.kv import Row
from controlplane.errors import HeldBackError
from controlplane.operations.options import now_text

KEYS = Keys("lb")
RECORD = CanaryRecord(
    "c1", "ann on hill", now_text(), 3600.0, ("n1", "n2"), 60.0, "a" * 64, digest_of_content(b"x"), "x"
)


def rows(record):
    """Return what the keys hold."""
    return {KEYS.canary: Row(record if isinstance(record, bytes) else record.encode(), 4)}


def test_one_that_runs():
    """Until it has ended, or its time is up."""
    assert running(KEYS, rows(RECORD)) == RECORD
    assert running(KEYS, {}) is None
    assert running(KEYS, rows(b"{")) is None
    assert running(KEYS, rows(with_end(RECORD, Ending.PROMOTED, "good"))) is None
    assert running(KEYS, rows(replace(RECORD, lasts_s=0.0))) is None


def test_who_is_refused():
    """All but who goes on with the same content; and all while somebody attends to it."""
    refuse_others(KEYS, {})
    refuse_others(KEYS, rows(RECORD), RECORD.content_hash)
    for mine in (None, "b" * 64):
        with pytest.raises(
            HeldBackError, match=r"canary c1 of ann on hill runs on n1, n2 since .*--take-back"
        ):
            refuse_others(KEYS, rows(RECORD), mine)
    with pytest.raises(HeldBackError, match=r"somebody who does not say who it is .* within 20 s"):
        refuse_others(KEYS, {**rows(RECORD), KEYS.lock: Row(b"", 5, "s1")}, RECORD.content_hash)
    refuse_others(KEYS, {KEYS.lock: Row(b"", 5)})


def test_an_end_can_be_read_by_every_node():
    """However much there is to say."""
    end = with_end(RECORD, Ending.TAKEN_BACK, "x" * (2 * MAX_WHY_CHARS))
    read = parse_record(end.encode())
    assert (read, read.ended.how) == (end, "taken_back")
