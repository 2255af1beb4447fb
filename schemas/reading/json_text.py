"""Reads JSON with the standard library, and finds the places of its parts only when somebody asks."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final, NamedTuple, NoReturn

from yaml import events

from schemas.reading.yaml_text import MAX_DEPTH, Broken, Builder, Flaw, Place, position, too_deep

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


COMMENTS: Final = ("//", "/*")
"""What comments begin with in JSON's relatives (JSON5, JSONC)."""
_COMMENT: Final = re.compile(r'"(?:[^"\\\n]|\\.)*"|(?P<comment>//[^\n]*|/\*.*?\*/)', re.DOTALL)
_TRAILING_COMMA: Final = re.compile(r",(?=\s*[}\]])")


class NotJson(Broken):
    """The text is no JSON from the flaw on; the caller tries YAML next."""


def read(text: str) -> tuple[Any, tuple[Flaw, ...], Callable[[], Place]]:
    """Read one JSON text: its value, its repeated keys (the first one of each counts), and what finds the places.

    NotJson: it is none. Broken: it is nested too deep.
    """
    repeated = False

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        made = dict(pairs)
        if len(made) < len(pairs):
            repeated = True
            made = {}
            for key, value in pairs:
                made.setdefault(key, value)
        return made

    try:
        value = json.loads(text, object_pairs_hook=members, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise NotJson(Flaw((), f"is not JSON: {error.msg}", error.lineno, error.colno)) from None
    except ValueError as error:  # NaN, or a number with thousands of digits
        raise NotJson(Flaw((), f"is not JSON: {error}", 1, 1)) from None
    except RecursionError:
        raise too_deep((), 1, 1) from None
    _check_depth(value)
    places = cache(lambda: _places(text))
    flaws = places()[1] if repeated else ()
    return value, flaws, lambda: places()[0]


def comment_in(text: str) -> Flaw | None:
    """Return where the first comment is in what would be JSON without its comments; None: it is not that."""
    found: list[int] = []

    def blank(match: re.Match[str]) -> str:
        if match["comment"] is None:
            return match[0]
        found.append(match.start())
        return " "

    without = _COMMENT.sub(blank, text)
    if not found:
        return None
    try:
        json.loads(_TRAILING_COMMA.sub("", without))
    except (ValueError, RecursionError):
        return None
    message = "comments are no JSON: begin them with # (then it is read as YAML), or leave them out"
    return Flaw((), message, *position(text, found[0]))


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = [each for one in level for each in (one.values() if isinstance(one, dict) else one)]
        level = [each for each in inner if isinstance(each, (dict, list))]
        if not level:
            return
    raise too_deep((), 1, 1)


def _places(text: str) -> tuple[Place, tuple[Flaw, ...]]:
    """Return the root's place, and the repeated keys."""
    following = _events(text)
    builder = Builder(following.__next__)
    _, place = builder.value(next(following))
    return place, tuple(builder.flaws)


class _Mark(NamedTuple):
    line: int
    column: int


def _events(text: str) -> Iterator[events.Event]:
    """Say a text that is known to be JSON in YAML's events."""
    line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
    for token in _TOKEN.finditer(text):
        word = token[0]
        line = bisect_right(line_starts, token.start()) - 1
        mark: Any = _Mark(line, token.start() - line_starts[line])
        if word in _BRACKETS:
            yield _BRACKETS[word](mark)
        elif word.startswith('"'):
            yield events.ScalarEvent(None, None, (False, True), json.loads(word), mark)
        elif word not in ",:":
            yield events.ScalarEvent(None, None, (True, False), word, mark)


_BRACKETS: Final[dict[str, Callable[[Any], events.Event]]] = {
    "{": lambda mark: events.MappingStartEvent(None, None, implicit=True, start_mark=mark),
    "}": events.MappingEndEvent,
    "[": lambda mark: events.SequenceStartEvent(None, None, implicit=True, start_mark=mark),
    "]": events.SequenceEndEvent,
}
