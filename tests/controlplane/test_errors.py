"""What the control plane raises: one tree, codes that programs read, and texts that say whom, where and what to do."""

from __future__ import annotations

import re

import pytest

from controlplane import errors
from controlplane.errors import (
    BusyError,
    ControlError,
    DataPlaneError,
    GoneError,
    HeldBackError,
    InputError,
    LateError,
    OvertakenError,
    PlaceError,
    RefusedError,
    StoreError,
    UnidentifiedError,
    UnknownError,
    UnreachableError,
    UnreadableError,
)


def test_tree():
    """Whatever is raised here is a ControlError, and stands in the docstring's tree below what it is a kind of."""
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^(\W*)(\w+Error)\b", line)
        if found:
            depth = len(found[1])
            above = [each for each in above if each[0] < depth]
            drawn[found[2]] = above[-1][1] if above else "Exception"
            above.append((depth, found[2]))
    ours = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)]
    assert drawn == {each.__name__: each.__base__.__name__ for each in ours if each.__base__ is not None}


@pytest.mark.parametrize(
    ("kind", "code", "status", "exit_code"),
    [
        (ControlError, "error", 500, 1),
        (InputError, "invalid", 422, 2),
        (UnreadableError, "invalid", 422, 2),
        (UnidentifiedError, "invalid", 422, 2),
        (PlaceError, "unavailable", 503, 1),
        (BusyError, "busy", 409, 1),
        (StoreError, "store", 500, 1),
        (UnknownError, "unknown", 404, 1),
        (HeldBackError, "held_back", 409, 1),
        (UnreachableError, "unreachable", 502, 1),
        (GoneError, "unreachable", 502, 1),
        (LateError, "late", 504, 1),
        (OvertakenError, "overtaken", 409, 1),
        (RefusedError, "refused", 502, 1),
    ],
)
def test_what_programs_read(kind, code, status, exit_code):
    """The word in an error body, the daemon's HTTP status, a command's exit code; only what is written wrong is the content's."""
    assert (kind.code, kind.status, kind.exit_code) == (code, status, exit_code)
    assert kind.blames_content is (kind is InputError)


def test_each_problem_has_a_line():
    """With its place in the source and its place in the document, as far as they are known."""
    problems = [
        {"path": "services.web.listen", "message": "no address", "line": 4, "column": 13},
        {"path": "", "message": "cannot be read", "line": None, "column": None},
        {"path": "version", "message": "is missing"},
    ]
    assert str(InputError("lb.yaml", problems)).splitlines() == [
        "lb.yaml:4:13: services.web.listen: no address",
        "lb.yaml: cannot be read",
        "lb.yaml: version: is missing",
    ]
    assert str(InputError("", problems[2:])) == "version: is missing"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BusyError("/run/lb/control.sock", 7), "/run/lb/control.sock is in use by pid 7"),
        (BusyError("/run/lb", None), "/run/lb is in use by another process"),
        (UnreachableError("a", "nobody listens"), "unreachable: nobody listens"),
        (LateError("a", 30.0), "no answer within 30 s"),
        (LateError("a", 0.05), "no answer within 0.05 s"),
        (
            OvertakenError("a", 5, "lb-control of anna (pid 7 on b)"),
            "meanwhile lb-control of anna (pid 7 on b) has pushed generation 5: apply again, or use --force",
        ),
    ],
)
def test_texts(error, said):
    """An operator reads who, how long and what to do."""
    assert str(error) == said


def test_a_path_that_is_to_be_removed_can_be_pasted():
    """Blanks and all."""
    text = str(GoneError("a", "/run/l b/dataplane-a.sock", "2026-01-01T00:00:00Z"))
    assert "was last alive at 2026-01-01T00:00:00Z" in text
    assert text.endswith("rm '/run/l b/dataplane-a.sock'")


def test_errors_of_one_kind_are_not_the_same():
    """Two data planes may say the same, and each is raised by itself."""
    one, other = LateError("a", 1.0), LateError("a", 1.0)
    assert one != other
    assert len({one, other}) == 2


@pytest.mark.parametrize(
    ("body", "reason", "said"),
    [
        ({"code": "bind", "message": "cannot listen"}, "bind", "refused: cannot listen"),
        (
            {"code": "invalid", "message": "no", "details": [{"path": "a.b", "message": "bad"}, {"path": "c", "message": "x"}]},
            "invalid",
            "refused: no (a.b: bad; c: x)",
        ),
        (
            {
                "message": "a.b: bad; c: x",
                "details": [{"path": "a.b", "message": "bad"}, {"path": "c", "message": "x"}],
            },
            "http_503",
            "refused: a.b: bad; c: x",
        ),
        ({}, "http_503", "refused: status 503"),
        ({"code": None, "message": None, "details": None}, "http_503", "refused: status 503"),
    ],
)  # fmt: skip
def test_a_refusal_is_in_the_words_of_who_refuses(body, reason, said):
    """Of an answer without any, the status is what is known."""
    error = RefusedError("a", 503, body)
    assert isinstance(error, DataPlaneError)
    assert (error.name, error.reason, str(error)) == ("a", reason, said)


@pytest.mark.parametrize(
    ("status", "permanent"), [(399, False), (400, True), (422, True), (499, True), (500, False), (503, False)]
)
def test_the_same_question_again(status, permanent):
    """What is wrong with the question stays wrong; what is wrong with who answers may go."""
    assert RefusedError("a", status, {}).permanent() is permanent
