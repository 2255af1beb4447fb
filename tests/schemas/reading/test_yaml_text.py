"""YAML without what lets a text say something else than it shows."""

from __future__ import annotations

import pytest

from tests.schemas.reading.read import problems, value
from tests.support.documents import parse_document


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        ("127.0.0.1:4000", "127.0.0.1:4000"),
        ("4000:30", "4000:30"),
        ("12:30", "12:30"),
        (":4000", ":4000"),
        ("off", "off"),
        ("no", "no"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("0", 0),
        ("-5", -5),
        ("4000", 4000),
        ("010", "010"),
        ("0x10", "0x10"),
        ("0o10", "0o10"),
        ("1_000", "1_000"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".inf", ".inf"),
        ("NaN", "NaN"),
        ("2026-01-01", "2026-01-01"),
        ("10%", "10%"),
        ("1" * 30, "1" * 30),
        ("'5'", "5"),
        ('"true"', "true"),
        ('"PING\\r\\n"', "PING\r\n"),
        ("=", "="),
    ],
)
def test_plain_words_have_one_meaning(word, meaning):
    """No base 60, no octal, no date: a word that two readers would take for two things is text."""
    found = value(f"a: {word}\n")["a"]
    assert found == meaning
    assert type(found) is type(meaning)


def test_flow_and_block_style_are_the_same():
    """Both of YAML's styles can be mixed, addresses without quotes included."""
    assert value("a: {b: off, c: [127.0.0.1:80, x]}\nd:\n- e: 1\n") == {
        "a": {"b": "off", "c": ["127.0.0.1:80", "x"]},
        "d": [{"e": 1}],
    }


def test_keys_are_text():
    """A service may be called 1 or on."""
    assert value("1: a\non: b\n~: c\n") == {"1": "a", "on": "b", "~": "c"}


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("a: &x 1\n", "line 1, column 4: a:", "anchor &x"),
        ("a: {b: *x}\n", "line 1, column 8: a.b:", "alias *x"),
        ("a: !!str 1\n", "line 1, column 4: a:", "tag"),
        ("a: !x 1\n", "line 1, column 4: a:", "tag"),
        ("a: ! 1\n", "line 1, column 4: a:", "tag"),
        ("a:\n  <<: {b: 1}\n", "line 2, column 3: a:", "merge key"),
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1: a:", "given twice; the first is in line 1"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1:", "second document"),
        ("? [a]\n: 1\nb: 1\n", "line 1, column 3:", "a key must be a word"),
        ("&x a: 1\n", "line 1, column 1:", "anchor"),
    ],
)
def test_what_yaml_can_and_this_reader_will_not(text, place, reason):
    """Everything that lets a text say something else than it shows is refused, with its place."""
    (problem,) = problems(text)
    assert problem.startswith(place)
    assert reason in problem


def test_all_flaws_are_reported_at_once():
    """One mistake does not hide the next."""
    found = problems("a: &x 1\nb: *x\na: !!int 2\n")
    assert [text.split(":")[0] for text in found] == [
        "line 1, column 4",
        "line 2, column 4",
        "line 3, column 1",
        "line 3, column 4",
    ]


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n", "--- ~\n"])
def test_an_empty_document_is_no_document(text):
    """A file that was cut to nothing is an error, not zero services."""
    (problem,) = problems(text)
    assert "is empty" in problem


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        ("a: [::]:4000\nb: 1\n", "line 1, column 5", 'quote an IPv6 address: "[::]:4000"'),
        ("a: *:4000\n", "line 1", "quote a text that begins with"),
        ("a:\n\t- 1\n", "line 2, column 1", "indent with spaces"),
        ("a: b: c\n", "line 1, column 5", "not YAML"),
        ("a: @x\n", "line 1, column 4", "not YAML"),
        ("a: [1, 2\n", "line 2", "not YAML"),
    ],
)
def test_broken_syntax_is_shown_with_a_hint(text, place, hint):
    """A parser's words are no help to somebody who forgot quotes, so the likely cause is named."""
    (problem,) = problems(text)
    assert problem.startswith(place)
    assert hint in problem


def test_what_only_looks_like_json_is_yaml():
    """A brace may begin YAML's flow style as well."""
    assert value("{a: off, b: [x, 'y',],}") == {"a": "off", "b": ["x", "y"]}
    assert value('{"a": NaN}') == {"a": "NaN"}


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
