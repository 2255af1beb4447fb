"""What pydantic finds, said for people: which key is meant, what is allowed, and where it stands in a short form."""

from __future__ import annotations

import copy

import pytest
from pydantic import BaseModel, Field, ValidationError

from schemas.api import BackendPatch
from schemas.desired import DesiredService
from schemas.errors import format_path
from schemas.reading.findings import (
    Finding,
    check_all,
    closest,
    find,
    findings_of,
    to_problems,
    visible_path,
)
from schemas.snapshot import Service


class Inner(BaseModel, extra="forbid"):
    """A part of a document."""

    weight: int = Field(1, ge=1, le=9)
    mode: str = "rr"


class Outer(BaseModel, extra="forbid"):
    """A document."""

    name: str = Field(min_length=1)
    parts: tuple[Inner, ...] = ()
    by_name: dict[str, Inner] = Field(default={}, alias="by-name")


def found(value: object, prefix: tuple[str | int, ...] = ()) -> list[Finding]:
    """Return what is wrong with a document."""
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(value)
    return findings_of(caught.value, Outer, prefix)


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        ({}, ("name",), "is required"),
        ({"name": ["x"]}, ("name",), "must be text, not"),
        ({"name": "x", "parts": 5}, ("parts",), "must be a list, not 5"),
        ({"name": "x", "parts": [7]}, ("parts", 0), "must be a mapping, not 7"),
        ({"name": "x", "parts": [{"weight": 0}]}, ("parts", 0, "weight"), "must be at least 1, not 0"),
        ({"name": "x", "parts": [{"weight": 10}]}, ("parts", 0, "weight"), "must be at most 9, not 10"),
        (
            {"name": "x", "parts": [{"weight": 1.5}]},
            ("parts", 0, "weight"),
            "must be a whole number, not 1.5",
        ),
    ],
)
def test_the_value_and_what_it_must_be_are_named(
    value: object, path: tuple[str | int, ...], message: str
) -> None:
    """In our words: the path, what is allowed, and what stands there."""
    (one,) = found(value)
    assert (one.path, one.at_key) == (path, False)
    assert one.message.startswith(message)


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        ({"nane": 1}, ("nane",), "unknown key; did you mean name?"),
        ({"parts": [{"wait": 2}]}, ("parts", 0, "wait"), "unknown key; did you mean weight?"),
        ({"parts": [{"algorithm": "rr"}]}, ("parts", 0, "algorithm"), "unknown key; did you mean mode?"),
        ({"by-name": {"a": {"x": 1}}}, ("by-name", "a", "x"), "unknown key; known are weight, mode"),
    ],
)
def test_an_unknown_key_is_told_which_one_is_meant(
    value: dict[str, object], path: tuple[str | int, ...], message: str
) -> None:
    """The keys offered are those of its own place, in lists and mappings too; the finding is at the key."""
    (one,) = found({"name": "x", **value})
    assert (one.path, one.message, one.at_key) == (path, message, True)


def test_paths_begin_where_the_model_stands() -> None:
    """A prefix is where the root of the model is in the document."""
    assert [one.path for one in found({}, ("services", "web"))] == [("services", "web", "name")]


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("Max-Connections", ["limits", "mode"], "did you mean limits?"),
        ("max_connections", ["connections", "mode"], "did you mean connections?"),
        ("port", ["address", "weight"], "did you mean address?"),
        ("port", ["listen", "address"], "did you mean listen?"),
        ("balance", ["tier"], "known are tier"),
        ("lisen", ["listen", "mode"], "did you mean listen?"),
    ],
)
def test_other_programs_words_are_known(word: str, known: list[str], hint: str) -> None:
    """Only what the place itself knows is offered; without anything near, all that it knows."""
    assert closest(word, known) == hint


def test_a_long_list_of_keys_is_cut() -> None:
    """Two dozen are named."""
    hint = closest("?", [f"key{number}" for number in range(30)])
    assert hint.startswith("known are key0, key1,")
    assert hint.endswith("key23, ...")


@pytest.mark.parametrize(
    ("path", "steps", "value"),
    [
        ((), 0, {"a": [1, {"b": 2}]}),
        (("a", 1, "b"), 3, 2),
        (("a", 2), 1, [1, {"b": 2}]),
        (("a", "b"), 1, [1, {"b": 2}]),
        (("c", "d"), 0, {"a": [1, {"b": 2}]}),
    ],
)
def test_a_path_is_walked_as_far_as_the_value_goes(
    path: tuple[str | int, ...], steps: int, value: object
) -> None:
    """How many steps exist, and what stands at the last one."""
    assert find({"a": [1, {"b": 2}]}, path) == (steps, value)


@pytest.mark.parametrize(
    ("path", "root", "shown"),
    [
        (("backends", 0, "address"), {"backends": [{"address": 1}]}, ("backends", 0, "address")),
        (("backends", 0, "address"), {"backends": ["x"]}, ("backends", 0)),
        (("listen", 0, "address"), {"listen": ":1"}, ("listen",)),
        (("listen", 0, "address"), {"listen": {"address": 5}}, ("listen", "address")),
        (("listen", 0, "address"), {"listen": {}}, ("listen", "address")),
        (("listen",), {}, ("listen",)),
    ],
)
def test_short_forms_have_the_paths_that_are_written(
    path: tuple[str | int, ...], root: object, shown: tuple[str | int, ...]
) -> None:
    """One address for a list, or for an object, is shown where it stands, not where it was put by us."""
    assert visible_path(Finding(path, "wrong"), root) == shown


def test_problems_of_a_value_have_no_line() -> None:
    """What never was a text has paths only."""
    (problem,) = to_problems([Finding(("a", 0), "is wrong")], {"a": ["x"]})
    assert str(problem) == "a[0]: is wrong"
    assert problem.line is None


CASES = [
    ({"listen": "nowhere", "backends": ["a:1", "a:1"]}, ["backends[1]", "listen"]),
    ({"listen": ":1", "backends": ["nowhere", "a:1", "a:1"]}, ["backends[0].address", "backends[2]"]),
    (
        {"backends": [{"weight": 1}], "pool": {"min_idle": 9, "max_idle": 1}},
        ["backends[0].address", "listen", "pool.min_idle"],
    ),
    (
        {
            "listen": ":1",
            "mode": "x",
            "pool": {"mode": "reuse", "min_idle": 9, "max_idle": 1},
            "proxy_protocol": {"send": "v1"},
        },
        ["mode", "pool.min_idle", "proxy_protocol.send"],
    ),
    (
        {"listen": ":1", "pool": {"mode": "reuse"}, "proxy_protocol": {"send": "v1", "accept": "required"}},
        ["proxy_protocol.send", "proxy_protocol.trusted"],
    ),
]


@pytest.mark.parametrize(("value", "paths"), CASES)
def test_what_does_not_fit_is_found_behind_what_is_wrong(value, paths):
    """Each round looks behind the findings of the last one, and the value stays as it was."""
    before = copy.deepcopy(value)
    findings, _ = check_all(Service, value)
    assert sorted(format_path(one.path) for one in findings) == paths
    assert value == before


def test_what_is_right_comes_back():
    """So that it can be compared with other services."""
    findings, service = check_all(Service, {"listen": ":1", "mode": "x", "backends": ["a:1"]})
    assert len(findings) == 1
    assert service is not None
    assert (service.listen, service.mode) == (("0.0.0.0:1",), "rr")
    findings, service = check_all(Service, {"listen": ":1"})
    assert findings == []
    assert service is not None


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"backends": [], "discover": {}},
        {"discover": {"consul": {}}},
        {"discover": {"consul": {"tags": "x"}}},
    ],
)
def test_the_search_ends(value):
    """A contradiction that cannot be resolved is reported once."""
    findings, _ = check_all(DesiredService, {"listen": ":1", **value})
    paths = [one.path for one in findings]
    assert paths
    assert len(paths) == len(set(paths))


@pytest.mark.parametrize("value", [None, [], "x", 5])
def test_what_is_no_mapping_is_one_finding(value):
    """There is nothing to look behind."""
    findings, found = check_all(BackendPatch, value)
    assert [one.path for one in findings] == [()]
    assert found is None
