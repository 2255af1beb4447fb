from __future__ import annotations

import pytest

from schemas.api import BackendPatch, HealthUpdate
from schemas.errors import InvalidDocument
from schemas.reading.findings import checked


def problems(data):
    """Return the problems of a refusal."""
    with pytest.raises(InvalidDocument) as caught:
        checked(BackendPatch, data)
    return {problem.path: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize("data", [{"state": "drain"}, {"weight": 0}, {"state": "enabled", "weight": 256}])
def test_an_override_is_what_it_says(data):
    """Only what is overridden is sent on."""
    assert checked(BackendPatch, data).body() == data


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({}, ""),
        ([], ""),
        ({"state": "down"}, "state"),
        ({"weight": 257}, "weight"),
        ({"weight": "1"}, "weight"),
        ({"wieght": 1}, "wieght"),
    ],
)
def test_other_overrides_are_refused_by_path(data, path):
    """An operator's typo must not pass for a word."""
    assert path in problems(data)


def test_a_verdict_is_what_it_says():
    """Every field is taken as it is sent."""
    verdict = {
        "state": "down",
        "reachable": False,
        "cause": "connection refused",
        "since": "2026-01-01T00:00:00.000Z",
    }
    body = {"verdicts": {"web": {"127.0.0.1:80": verdict}}}
    assert checked(HealthUpdate, body).model_dump(mode="json") == body


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
