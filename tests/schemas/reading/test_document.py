"""Documents as they are given: bytes, their limits, and JSON or YAML as it comes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import InvalidDocument
from schemas.reading.document import MAX_BYTES
from tests.schemas.reading.read import problems
from tests.support.documents import parse_document


@pytest.mark.parametrize(
    ("raw", "place", "reason"),
    [
        (b"a: \xff", "line 1, column 4", "not UTF-8: byte 0xff"),
        (b"a: 1\nb: \xc3", "line 2, column 4", "not UTF-8"),
        ("a: 1".encode("utf-16"), "line 1, column 1", "is UTF-16; save it as UTF-8"),
        (b"\xef\xbb\xbfa: \xff", "line 1, column 4", "not UTF-8: byte 0xff"),
        (b"a: \xef\xbb\xbf1", "line 1, column 4", "U+FEFF"),
        (b"a: 1\nb: x\x00y", "line 2, column 5", "U+0000"),
        (b"a: \x1b[0m", "line 1, column 4", "U+001B"),
        ("a: \x85".encode(), "line 1, column 4", "U+0085"),
        ("a: \u2028".encode(), "line 1, column 4", "U+2028"),
        (b'{"a": "\x07"}', "line 1, column 8", "U+0007"),
    ],
)
def test_bytes_that_are_no_plain_text_are_named(raw, place, reason):
    """The first thing that is not UTF-8 text is shown by line, column and number."""
    (problem,) = problems(raw)
    assert problem.startswith(place)
    assert reason in problem


@pytest.mark.parametrize("text", ["a: 1", '{"a": 1}'])
def test_a_byte_order_mark_is_no_part_of_the_text(text):
    """Windows' editors write one; it changes neither what is read nor where it is."""
    document = parse_document(b"\xef\xbb\xbf" + text.encode())
    assert document.value == {"a": 1}
    assert document.locate(()) == (1, 1)


def test_one_mebibyte_is_the_limit():
    """A document of exactly the limit is read, one byte more is not."""
    fits = b"a: " + b"x" * (MAX_BYTES - 3)
    assert len(parse_document(fits).value["a"]) == MAX_BYTES - 3
    (problem,) = problems(fits + b"x")
    assert "1 MiB" in problem


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)


def paths_of(node, path=()):
    """Yield the path of every part."""
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, inner in items:
        yield from paths_of(inner, (*path, key))


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=6), JSON, max_size=4), st.sampled_from([None, 1, "\t"]))
def test_every_json_document_is_read_as_it_is(content, indent):
    """Any JSON object comes out unchanged, and every part of it has a place within the text."""
    text = json.dumps(content, indent=indent)
    document = parse_document(text.encode())
    assert document.value == content
    lines = text.split("\n")
    for path in paths_of(content):
        line, column = document.locate(path)
        assert lines[line - 1][column - 1] not in " \t,:]}"


@settings(deadline=None)
@given(
    st.binary(max_size=60) | st.text(alphabet="ab:[]{}-,&*!|>%@'\"#?<~ \n\t0.", max_size=60).map(str.encode)
)
def test_hostile_bytes_are_refused_in_order(raw):
    """Whatever the bytes, the answer is a document or an InvalidDocument with a place."""
    try:
        parse_document(raw)
    except InvalidDocument as error:
        found = error.problems
    else:
        return
    assert found
    assert all(problem.line and problem.column for problem in found)
