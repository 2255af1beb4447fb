"""Builds plain values and their places from YAML's events."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml
from yaml import events

from schemas.errors import MAX_PROBLEMS, shown
from schemas.reading.positions import MAX_DEPTH, Broken, Flaw, Place, too_deep

__all__ = ["read"]

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


def read(text: str) -> tuple[Any, tuple[Flaw, ...], Place]:
    """Read one document.

    Returns:
        Its value, what its notation must not contain, and the place of everything.

    Raises:
        Broken: It is not YAML, is empty, or is nested too deep.
    """
    parser = _Parser(text)
    try:
        return _Builder(parser).document()
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


class _Builder:
    """Takes one document's events, in order."""

    def __init__(self, parser: Any) -> None:
        self._next = parser.get_event
        self._path: list[str | int] = []
        self._flaws: list[Flaw] = []

    def document(self) -> tuple[Any, tuple[Flaw, ...], Place]:
        self._next()  # the stream's start
        event = self._next()
        if isinstance(event, events.StreamEndEvent):
            raise Broken(Flaw((), "is empty", 1, 1))
        value, place = self._value(self._next())
        if value is None and not self._flaws:
            raise Broken(Flaw((), "is empty", place.line, place.column))
        self._next()  # the document's end
        event = self._next()
        if not isinstance(event, events.StreamEndEvent):
            self._flaw(event, "a second document begins here; only one is read")
        return value, tuple(self._flaws), place

    def _value(self, event: Any) -> tuple[Any, Place]:
        kind = type(event)
        mark = event.start_mark
        line, column = mark.line + 1, mark.column + 1
        if kind is events.AliasEvent:
            self._flaw(
                event,
                f"alias *{event.anchor}: write the value again; a text that begins with * needs quotes",
                hides=True,
            )
            return None, Place(line, column)
        if event.anchor is not None:
            self._flaw(
                event, f"anchor &{event.anchor} is not allowed; a text that begins with & needs quotes"
            )
        if event.tag is not None:
            self._flaw(
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
            value, place = self._value(event)
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
                self._flaw(event, f"is given twice; the first is in line {places[key][0]}")
                key = None
            value, place = self._value(self._next())
            self._path.pop()
            if key is not None:
                values[key] = value
                places[key] = (mark.line + 1, mark.column + 1, place)
        return values, places

    def _key(self, event: Any) -> str | None:
        """Return a key as it is written; None if it cannot be one."""
        if type(event) is not events.ScalarEvent:
            if type(event) is events.AliasEvent:
                self._flaw(event, f"alias *{event.anchor} is not allowed as a key")
            else:
                self._flaw(event, "a key must be a word, not a list or mapping")
                self._value(event)
            return None
        if event.value == "<<":
            self._flaw(event, "merge key << is not allowed; use defaults for what services share", hides=True)
            return None
        if event.anchor is not None or event.tag is not None:
            self._flaw(event, "a key must not have an anchor or tag")
        return str(event.value)

    def _flaw(self, event: Any, message: str, *, hides: bool = False) -> None:
        if len(self._flaws) >= MAX_PROBLEMS:
            return
        mark = event.start_mark
        self._flaws.append(Flaw(tuple(self._path), message, mark.line + 1, mark.column + 1, hides))


def _plain(text: str) -> Any:
    """Tell what an unquoted word stands for."""
    if text[:1] in _NUMBER_START:
        if _INT.fullmatch(text):
            return int(text)
        return float(text) if _FLOAT.fullmatch(text) else text
    if text in _NULL:
        return None
    return _BOOLEAN.get(text, text)
