"""Builds plain values and their places from YAML's events: a tree of places beside the value."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import yaml
from yaml import events

from schemas.errors import MAX_PROBLEMS, Path, Problem, format_path, shown

MAX_DEPTH: Final = 32

# libyaml's parser where PyYAML was built with it: ten times as fast, the same events.
_Parser: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# YAML 1.2, section 10.3.2 (core schema), without what two readers may take for different numbers:
# leading zeros, hexadecimal and octal stay text.
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEAN: Final = {
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_NUMBER_START: Final = frozenset("+-0123456789")
_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,17})?(?:[eE][-+]?[0-9]{1,3})?")
_BARE_IPV6: Final = re.compile(r"(?<![\"'\w])\[[0-9A-Fa-f:.]*\]:[0-9]")


class Place(NamedTuple):
    """Where one value begins; lines and columns count from 1."""

    line: int
    column: int
    members: dict[str, tuple[int, int, Place]] | None = None
    """Of a mapping: each key's line, column, and its value's place."""
    items: list[Place] | None = None
    """Of a list."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something in a document's notation that is not allowed."""

    path: Path
    message: str
    line: int
    column: int
    hides: bool = False
    """Whether the value there is not what was meant, so that nothing more can be said about it."""

    def problem(self) -> Problem:
        """Return it for people."""
        return Problem(format_path(self.path), self.message, self.line, self.column)


@dataclass(eq=False)
class Broken(Exception):  # noqa: N818 - carries a flaw to the border of this package, where it becomes one
    """The document cannot be read any further."""

    flaw: Flaw


def too_deep(path: Path, line: int, column: int) -> Broken:
    """Make the refusal of a document that is nested too deep."""
    return Broken(Flaw(path[:4], f"is nested more than {MAX_DEPTH} deep", line, column))


def position(text: str, offset: int) -> tuple[int, int]:
    """Return the line and the column of a character, both from 1."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def read(text: str) -> tuple[Any, tuple[Flaw, ...], Place]:
    """Read one document: its value, what its notation must not contain, and the place of everything.

    Broken: it is not YAML, is empty, or is nested too deep.
    """
    parser = _Parser(text)
    try:
        return _document(parser.get_event)
    except yaml.YAMLError as error:
        raise Broken(_syntax_flaw(error, text)) from None
    finally:
        parser.dispose()


def _syntax_flaw(error: yaml.YAMLError, text: str) -> Flaw:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
    if mark is None:
        return Flaw((), f"is not YAML: {what}", 1, 1)
    # A parser notices at the next line what this one lacks, so hints look at both.
    near = text.splitlines()[max(0, mark.line - 1) : mark.line + 1]
    hint = ""
    if any(_BARE_IPV6.search(line) for line in near):
        hint = '; quote an IPv6 address: "[::]:4000"'
    elif "alias" in what or "anchor" in what or "alphabetic" in what:
        hint = '; quote a text that begins with "*" or "&"'
    elif any(line.lstrip(" ").startswith("\t") for line in near):
        hint = "; indent with spaces, not tabs"
    return Flaw((), f"is not YAML: {what}{hint}", mark.line + 1, mark.column + 1)


def _document(next_event: Callable[[], Any]) -> tuple[Any, tuple[Flaw, ...], Place]:
    next_event()  # the stream's start
    if isinstance(next_event(), events.StreamEndEvent):
        raise Broken(Flaw((), "is empty", 1, 1))
    builder = Builder(next_event)
    value, place = builder.value(next_event())
    if value is None and not builder.flaws:
        raise Broken(Flaw((), "is empty", place.line, place.column))
    next_event()  # the document's end
    event = next_event()
    if not isinstance(event, events.StreamEndEvent):
        builder.flaw(event, "a second document begins here; only one is read")
    return value, tuple(builder.flaws), place


class Builder:
    """Takes the events of one document, in order, and notes what its notation must not contain."""

    def __init__(self, next_event: Callable[[], Any]) -> None:
        self.flaws: list[Flaw] = []
        self._next = next_event
        self._path: list[str | int] = []

    def value(self, event: Any) -> tuple[Any, Place]:
        """Return what begins with an event, and its place."""
        kind = type(event)
        mark = event.start_mark
        line, column = mark.line + 1, mark.column + 1
        if kind is events.AliasEvent:
            self.flaw(
                event,
                f"alias *{event.anchor}: write the value again; a text that begins with * needs quotes",
                hides=True,
            )
            return None, Place(line, column)
        if event.anchor is not None:
            self.flaw(event, f"anchor &{event.anchor} is not allowed; a text that begins with & needs quotes")
        if event.tag is not None:
            self.flaw(
                event,
                f"tag {shown(event.tag)} is not allowed; a text that begins with ! needs quotes",
                hides=True,
            )
        if kind is events.ScalarEvent:
            return (_plain(event.value) if event.implicit[0] else event.value), Place(line, column)
        if len(self._path) >= MAX_DEPTH:
            raise too_deep(tuple(self._path), line, column)
        if kind is events.SequenceStartEvent:
            values, places = self._items()
            return values, Place(line, column, items=places)
        mapping, members = self._members()
        return mapping, Place(line, column, members=members)

    def _items(self) -> tuple[list[Any], list[Place]]:
        values: list[Any] = []
        places: list[Place] = []
        while type(event := self._next()) is not events.SequenceEndEvent:
            self._path.append(len(values))
            value, place = self.value(event)
            self._path.pop()
            values.append(value)
            places.append(place)
        return values, places

    def _members(self) -> tuple[dict[str, Any], dict[str, tuple[int, int, Place]]]:
        values: dict[str, Any] = {}
        places: dict[str, tuple[int, int, Place]] = {}
        while type(event := self._next()) is not events.MappingEndEvent:
            mark = event.start_mark
            key = self._key(event)
            self._path.append("?" if key is None else key)
            if key is not None and key in values:
                self.flaw(event, f"is given twice; the first is in line {places[key][0]}")
                key = None
            value, place = self.value(self._next())
            self._path.pop()
            if key is not None:
                values[key] = value
                places[key] = (mark.line + 1, mark.column + 1, place)
        return values, places

    def _key(self, event: Any) -> str | None:
        """Return a key as it is written; None if it cannot be one."""
        if type(event) is not events.ScalarEvent:
            if type(event) is events.AliasEvent:
                self.flaw(event, f"alias *{event.anchor} is not allowed as a key")
            else:
                self.flaw(event, "a key must be a word, not a list or mapping")
                self.value(event)
            return None
        if event.value == "<<" and event.implicit[0]:
            self.flaw(event, "merge key << is not allowed; use defaults for what services share", hides=True)
            return None
        if event.anchor is not None or event.tag is not None:
            self.flaw(event, "a key must not have an anchor or tag")
        return str(event.value)

    def flaw(self, event: Any, message: str, *, hides: bool = False) -> None:
        """Note one; `hides` as in `Flaw`."""
        if len(self.flaws) >= MAX_PROBLEMS:
            return
        mark = event.start_mark
        self.flaws.append(Flaw(tuple(self._path), message, mark.line + 1, mark.column + 1, hides))


def _plain(text: str) -> Any:
    """Tell what an unquoted word stands for."""
    if text[:1] in _NUMBER_START:
        if _INT.fullmatch(text):
            return int(text)
        return float(text) if _FLOAT.fullmatch(text) else text
    if text in _NULL:
        return None
    return _BOOLEAN.get(text, text)
