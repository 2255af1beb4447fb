"""Where the parts of a document stand, and how deep it may go."""

from __future__ import annotations

import pytest

from tests.schemas.reading.read import problems
from tests.support.documents import parse_document


@pytest.mark.parametrize("opening", ["[", '{"a":', "- "])
def test_depth_is_limited(opening):
    """Nesting is counted, not trusted to the stack: 32 levels are read, 33 and 100,000 are refused."""
    closing = {"[": "]", '{"a":': "}", "- ": ""}[opening]
    assert parse_document((opening * 32 + "1" + closing * 32).encode())
    for depth in (33, 100_000):
        (problem,) = problems(opening * depth + "1" + closing * depth)
        assert "nested more than 32 deep" in problem


YAML = """\
version: 1
services:
  web:
    listen: ":1"
    backends:
      - a:1
      - {address: b:1,
         weight: 5}
"""


@pytest.mark.parametrize(
    ("path", "at_key", "place"),
    [
        (("version",), False, (1, 10)),
        (("version",), True, (1, 1)),
        (("services", "web"), False, (3, 3)),
        (("services", "web", "backends", 0), False, (6, 9)),
        (("services", "web", "backends", 1, "weight"), False, (8, 18)),
        (("services", "web", "backends", 1, "weight"), True, (8, 10)),
        (("services", "web", "mode"), False, (3, 3)),
        (("services", "web", "backends", 7), False, (5, 5)),
        ((), False, (1, 1)),
    ],
)
def test_parts_are_located_in_yaml(path, at_key, place):
    """A value is found where it begins, a mapping at its key, and what is missing at what lacks it."""
    assert parse_document(YAML.encode()).locate(path, at_key=at_key) == place


def test_parts_are_located_in_json():
    """JSON has the same places, escapes in keys and strings included."""
    document = parse_document(b'{\n "a\\"b": [1,\n  {"c": "x\\\\",\t"d": 2}]\n}')
    assert document.locate(('a"b', 1, "d")) == (3, 21)
    assert document.locate(('a"b', 1, "d"), at_key=True) == (3, 16)
    assert document.locate(('a"b',)) == (2, 2)
