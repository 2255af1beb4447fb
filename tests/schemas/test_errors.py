from __future__ import annotations

import pytest

from schemas.errors import InvalidDocument, Problem, format_path, shown


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("services", "web", "backends", 1, "weight"), "services.web.backends[1].weight"),
        (("services", "a.b", "mode"), 'services["a.b"].mode'),
        (("x\ny",), '["x\\ny"]'),
        ((0, "a"), "[0].a"),
    ],
)
def test_paths_are_written_so_that_they_can_be_read_back(path, text):
    """A key that could be taken for several, or that would break the line, is quoted."""
    assert format_path(path) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", '"a"'),
        ("é", '"é"'),
        ("a\x1b[2J", '"a\\u001b[2J"'),
        (True, "true"),
        (4000, "4000"),
        (None, "nothing"),
        ({}, "a mapping"),
        ([], "a list"),
    ],
)
def test_values_are_shown_without_control_characters(value, text):
    """What a document contains can neither move a terminal's cursor nor break a line of a log."""
    assert shown(value) == text


def test_long_values_are_cut():
    """A message stays a line, whatever the document holds."""
    assert len(shown("x" * 10_000)) < 70


def test_a_problem_names_its_place_first():
    """Line and column come first, where editors look for them."""
    assert str(Problem("a.b", "is wrong", 4, 7)) == "line 4, column 7: a.b: is wrong"
    assert str(Problem("a.b", "is wrong")) == "a.b: is wrong"
    assert str(Problem("", "is empty", 1, 1)) == "line 1, column 1: is empty"


def test_details_are_what_the_api_answers():
    """The API's 422 lists path and message of every problem."""
    error = InvalidDocument((Problem("a", "x"), Problem("b", "y")))
    assert error.details() == [{"path": "a", "message": "x"}, {"path": "b", "message": "y"}]
    assert str(error) == "a: x\nb: y"
