from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import InvalidDocument
from schemas.reading.document import MAX_BYTES, parse_document


def value(text):
    """Return what a text holds."""
    return parse_document(text.encode()).value


def problems(raw):
    """Return the problems of a refusal."""
    with pytest.raises(InvalidDocument) as caught:
        parse_document(raw if isinstance(raw, bytes) else raw.encode())
    return [str(problem) for problem in caught.value.problems]


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


def test_one_mebibyte_is_the_limit():
    """A document of exactly the limit is read, one byte more is not."""
    fits = b"a: " + b"x" * (MAX_BYTES - 3)
    assert len(parse_document(fits).value["a"]) == MAX_BYTES - 3
    (problem,) = problems(fits + b"x")
    assert "1 MiB" in problem


@pytest.mark.parametrize("opening", ["[", '{"a":', "- "])
def test_depth_is_limited(opening):
    """Nesting is counted, not trusted to the stack: 32 levels are read, 33 and 100,000 are refused."""
    closing = {"[": "]", '{"a":': "}", "- ": ""}[opening]
    assert parse_document((opening * 32 + "1" + closing * 32).encode())
    for depth in (33, 100_000):
        (problem,) = problems(opening * depth + "1" + closing * depth)
        assert "nested more than 32 deep" in problem


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


def test_what_only_looks_like_json_is_yaml():
    """A brace may begin YAML's flow style as well."""
    assert value("{a: off, b: [x, 'y',],}") == {"a": "off", "b": ["x", "y"]}
    assert value('{"a": NaN}') == {"a": "NaN"}


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
