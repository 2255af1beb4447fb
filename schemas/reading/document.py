"""Reads a YAML or JSON document strictly, and remembers where everything in it stands.

Of YAML only what has one meaning: no aliases, anchors, tags, merge keys or second document, and no key
twice. Plain words follow YAML 1.2's core schema, so `off` is a word and `12:30` is no number.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.errors import InvalidDocument, Path, Problem
from schemas.reading import json_text, yaml_text
from schemas.reading.yaml_text import Broken, Flaw, Place, position

MAX_BYTES: Final = 1 << 20
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# C0, DEL and C1 but for tab and the ends of a line; and the separators that YAML 1.1 takes for line ends.
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Document:
    """A document's content as plain values, and the places of its parts."""

    value: Any
    """Dictionaries, lists, str, int, float, bool and None."""
    flaws: tuple[Flaw, ...]
    """What the notation must not contain; the value is complete nevertheless."""
    _place: Callable[[], Place] = field(repr=False)

    def locate(self, path: Path, *, at_key: bool = False) -> tuple[int, int]:
        """Tell where a part stands: line and column, from 1; of one that does not exist, the nearest part above counts.

        `at_key`: the key is meant rather than its value. A mapping or list is always found at its key, and an item of
        a list, which has none, at itself.
        """
        place = self._place()
        key = (place.line, place.column)
        for part in path:
            if isinstance(part, str) and place.members is not None and part in place.members:
                line, column, place = place.members[part]
                key = (line, column)
            elif isinstance(part, int) and place.items is not None and part < len(place.items):
                place = place.items[part]
                key = (place.line, place.column)
            else:
                break
        is_scalar = place.members is None and place.items is None
        return (place.line, place.column) if is_scalar and not at_key else key


def scan_document(raw: bytes) -> Document:
    """Read a document as far as it can be read, so that a check of its content can follow.

    InvalidDocument: it has no content that could be checked.
    """
    text = _decode(raw)
    try:
        if text.lstrip().startswith(("{", "[", *json_text.COMMENTS)):
            try:
                value, flaws, place = json_text.read(text)
                return Document(value, flaws, place)
            except json_text.NotJson as not_json:
                return _flow_yaml(text, not_json)
        return _yaml(text)
    except Broken as broken:
        raise InvalidDocument((broken.flaw.problem(),)) from None


def _yaml(text: str) -> Document:
    value, flaws, place = yaml_text.read(text)
    return Document(value, flaws, lambda: place)


def _flow_yaml(text: str, not_json: json_text.NotJson) -> Document:
    """Read what begins like JSON and is none; if it is no YAML either, say what the writer meant."""
    if (comment := json_text.comment_in(text)) is not None:
        raise Broken(comment)
    try:
        return _yaml(text)
    except Broken:
        if text.lstrip()[1:].lstrip()[:1] == '"':
            raise not_json from None
        raise


def _decode(raw: bytes) -> str:
    if len(raw) > MAX_BYTES:
        raise InvalidDocument(
            (Problem("", f"is {len(raw)} bytes long; at most {MAX_BYTES} (1 MiB) are read"),)
        )
    if raw.startswith(_UTF_16):
        raise InvalidDocument((Problem("", "is UTF-16; save it as UTF-8", 1, 1),))
    # Windows' editors write one, which says nothing (RFC 3629, section 6).
    raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8")
        message = f"is not UTF-8: byte 0x{raw[error.start]:02x}"
        raise InvalidDocument((Problem("", message, *position(before, len(before))),)) from None
    controls = list(_CONTROL.finditer(text))[:20]
    if controls:
        message = "control character U+{:04X} is not allowed here"
        raise InvalidDocument(
            tuple(Problem("", message.format(ord(one[0])), *position(text, one.start())) for one in controls)
        )
    return text
