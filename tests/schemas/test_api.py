from __future__ import annotations

import pytest

from schemas.api import BackendPatch, HealthUpdate, parse_backends_patch_steps
from schemas.errors import InvalidDocument
from schemas.reading.findings import checked
from schemas.snapshot import SLICE, finish


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


def many(count):
    """Return a body that overrides so many backends."""
    return {"backends": {f"b{number}": {"weight": number % 256} for number in range(count)}}


@pytest.mark.parametrize("count", [1, SLICE, 3 * SLICE + 1])
def test_many_overrides_are_checked_in_slices(count):
    """Few are one piece; each says what it says alone, in the order of the body."""
    steps = parse_backends_patch_steps(many(count))
    pieces = []
    while True:
        try:
            pieces.append(next(steps))
        except StopIteration as stop:
            made = stop.value.backends
            break
    assert len(pieces) == (0 if count <= SLICE else -(-count // SLICE))
    assert {name: one.body() for name, one in made.items()} == many(count)["backends"]


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({}, ["backends"]),
        ([], [""]),
        ({"backends": {}}, ["backends"]),
        ({"backends": []}, ["backends"]),
        ({"backends": {"a b": {"weight": 1}}}, ['backends["a b"]']),
        ({"backends": {"a": {"weight": 1}}, "weight": 1}, ["weight"]),
        (
            {"backends": {"a": {}, "b": {"weight": 1}, "c": {"state": "up"}}},
            ["backends.a", "backends.c.state"],
        ),
        (
            {"backends": {**many(2 * SLICE)["backends"], "b7": {"weight": 300}, "b400": {"weihgt": 1}}},
            ["backends.b7.weight", "backends.b400.weihgt"],
        ),
        ({**many(2 * SLICE), "state": "drain"}, ["state"]),
    ],
)
def test_one_wrong_override_and_all_are_refused_by_path(body, paths):
    """Every place that is wrong is named, however many backends there are."""
    with pytest.raises(InvalidDocument) as caught:
        finish(parse_backends_patch_steps(body))
    assert [problem.path for problem in caught.value.problems] == paths


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
