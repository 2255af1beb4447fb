"""JSON as it is, and what comes close to it."""

from __future__ import annotations

import pytest

from tests.schemas.reading.read import problems, value
from tests.support.documents import parse_document


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ('{ // why\n "a": 1 }', 1, 3),
        ('{\n "a": 1, /* why */ "b": 2 }', 2, 10),
        ('{\n "a": 1 // why\n}', 2, 9),
        ('// why\n{"a": 1}', 1, 1),
        ('/* why\n so */ {"a": 1}', 1, 1),
        ('{"a": 1}\n// why', 2, 1),
        ('{\n "a": [1, 2,], // why\n}', 2, 16),
        ('{"a": "x // no", "b": /* why */ 2}', 1, 23),
    ],
)
def test_json_with_comments_is_told_so(text, line, column):
    """What other programs take for JSON is none, and YAML's comments are others: said where the first one is."""
    (problem,) = problems(text)
    assert problem.startswith(f"line {line}, column {column}: comments are no JSON: begin them with #")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{\n "a": 1, # why\n}', {"a": 1}),
        ("{a: http://x}", {"a": "http://x"}),
        ('{"a": http://x}', {"a": "http://x"}),
        ('{"a": "// no"}', {"a": "// no"}),
        ("a: 1 // 2", {"a": "1 // 2"}),
    ],
)
def test_what_is_no_comment_of_json(text, value):
    """YAML's comments, texts and addresses are read as they are."""
    assert parse_document(text.encode()).value == value


def test_json_is_read_with_tabs_and_escapes():
    """What YAML would refuse or misread is read as the JSON that it is."""
    text = '{"a":\t1,\n\t"b": "\\ud83d\\ude00\\/",\r\n\t"c": [true, null, 1.5, -0, "4000:30"]}'
    assert value(text) == {"a": 1, "b": "😀/", "c": [True, None, 1.5, 0, "4000:30"]}


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ('{"a": 1,\n "b": {"c": 1, "c": 2}}', "line 2, column 16: b.c:", "given twice"),
        ('{"a": [1, 2}', "line 1, column 12", "not JSON"),
        ('{"a": 1} {"b": 2}', "line 1, column 10", "not JSON"),
        ('{"a": 1]', "line 1, column 8", "not JSON"),
    ],
)
def test_json_problems_have_a_place_too(text, place, reason):
    """A document that is meant as JSON gets JSON's error, not YAML's."""
    (problem,) = problems(text)
    assert problem.startswith(place)
    assert reason in problem


def test_parts_are_located_in_json():
    """JSON has the same places, escapes in keys and strings included."""
    document = parse_document(b'{\n "a\\"b": [1,\n  {"c": "x\\\\",\t"d": 2}]\n}')
    assert document.locate(('a"b', 1, "d")) == (3, 21)
    assert document.locate(('a"b', 1, "d"), at_key=True) == (3, 16)
    assert document.locate(('a"b',)) == (2, 2)
