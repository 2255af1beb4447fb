"""Reads JSON with the standard library, and finds the places of its parts only when somebody asks."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NoReturn

from schemas.errors import MAX_PROBLEMS
from schemas.reading.positions import MAX_DEPTH, Flaw, Place, too_deep

__all__ = ["COMMENTS", "NotJson", "comment_in", "read"]

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


COMMENTS: Final = ("//", "/*")
"""What comments begin with in JSON's relatives (JSON5, JSONC)."""
_COMMENT: Final = re.compile(r'"(?:[^"\\\n]|\\.)*"|(?P<comment>//[^\n]*|/\*.*?\*/)', re.DOTALL)
_TRAILING_COMMA: Final = re.compile(r",(?=\s*[}\]])")


@dataclass(eq=False)
class NotJson(Exception):  # noqa: N818 - an answer: the caller tries YAML next
    """The text is no JSON."""

    flaw: Flaw
    """Where it ceases to be."""


def read(text: str) -> tuple[Any, tuple[Flaw, ...], Callable[[], Place]]:
    """Read one JSON text.

    Returns:
        Its value, its repeated keys (the first one of each counts), and what finds the places.

    Raises:
        NotJson: It is none.
        Broken: It is nested too deep.
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
    places = cache(lambda: _Places(text).read())
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
    before = text[: found[0]]
    message = "comments are no JSON: begin them with # (then it is read as YAML), or leave them out"
    return Flaw((), message, before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += one.values()
            elif isinstance(one, list):
                inner += one
        level = inner
        if not level:
            return
    raise too_deep((), 1, 1)


class _Places:
    """Walks over a text that is known to be JSON."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: Iterator[re.Match[str]] = _TOKEN.finditer(text)
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._path: list[str | int] = []
        self._flaws: list[Flaw] = []

    def read(self) -> tuple[Place, tuple[Flaw, ...]]:
        """Return the root's place, and the repeated keys."""
        return self._value(next(self._tokens)), tuple(self._flaws)

    def _position(self, token: re.Match[str]) -> tuple[int, int]:
        line = bisect_right(self._line_starts, token.start())
        return line, token.start() - self._line_starts[line - 1] + 1

    def _value(self, token: re.Match[str]) -> Place:
        line, column = self._position(token)
        if token[0] == "{":
            return Place(line, column, members=self._members())
        if token[0] == "[":
            return Place(line, column, items=self._items())
        return Place(line, column)

    def _items(self) -> list[Place]:
        places: list[Place] = []
        while (token := next(self._tokens))[0] != "]":
            if token[0] != ",":
                self._path.append(len(places))
                places.append(self._value(token))
                self._path.pop()
        return places

    def _members(self) -> dict[str, tuple[int, int, Place]]:
        places: dict[str, tuple[int, int, Place]] = {}
        while (token := next(self._tokens))[0] != "}":
            if token[0] == ",":
                continue
            line, column = self._position(token)
            key: str = json.loads(token[0])
            next(self._tokens)  # the colon
            self._path.append(key)
            if key in places and len(self._flaws) < MAX_PROBLEMS:
                message = f"is given twice; the first is in line {places[key][0]}"
                self._flaws.append(Flaw(tuple(self._path), message, line, column))
            place = self._value(next(self._tokens))
            places.setdefault(key, (line, column, place))
            self._path.pop()
        return places
