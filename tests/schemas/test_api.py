from __future__ import annotations

import pytest

from schemas.api import BackendPatch
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
