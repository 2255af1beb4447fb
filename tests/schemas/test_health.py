from __future__ import annotations

import pytest

from schemas.errors import InvalidDocument
from schemas.health import HealthUpdate
from schemas.reading.findings import checked


def test_verdicts_survive_the_way_to_a_worker():
    """What a supervisor sends is what a worker reads."""
    verdict = {
        "state": "down",
        "reachable": False,
        "cause": "connection refused",
        "since": "2026-01-01T00:00:00.000Z",
    }
    body = {"verdicts": {"web": {"127.0.0.1:80": verdict}}}
    assert checked(HealthUpdate, body).body() == body


def test_a_verdict_needs_only_its_state():
    """Cause and time are for people."""
    verdict = checked(HealthUpdate, {"verdicts": {"web": {"a": {"state": "up"}}}}).verdicts["web"]["a"]
    assert (verdict.state, verdict.cause, verdict.since) == ("up", "", "")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "verdicts"),
        ({"verdicts": {"web": {"a": {"state": "ejected"}}}}, "verdicts.web.a.state"),
        ({"verdicts": {"web": {"a": {"state": "up", "cause": "a\nb"}}}}, "verdicts.web.a.cause"),
        ({"verdicts": {"web": {"a b": {"state": "up"}}}}, 'verdicts.web["a b"]'),
        ({"verdicts": {"web": {"a": {"state": "up", "sinc": ""}}}}, "verdicts.web.a.sinc"),
        ({"verdicts": []}, "verdicts"),
    ],
)
def test_other_verdicts_are_refused_by_path(body, path):
    """`ejected` is each worker's own word, and nothing unknown is taken."""
    with pytest.raises(InvalidDocument) as caught:
        checked(HealthUpdate, body)
    assert [problem.path for problem in caught.value.problems] == [path]
