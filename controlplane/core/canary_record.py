"""The canary record: beside the key of the desired state, what some nodes are to run first, for how long, and how it ended.

What is read here was written by somebody who may write the key, or by another version of us: everything is bounded, and
fields that are not known are passed over.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

VERSION: Final = 1
MAX_LASTS_S: Final = 86400.0
"""Nobody looks at a canary for longer than a day."""
MAX_NODES: Final = 1000
MAX_CONTENT_BYTES: Final = 300 * 1024
"""Of an lb.yaml with a canary: Consul takes 512 KiB for a transaction, in which it is written in base64."""
MAX_WHY_CHARS: Final = 1000
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_WORD: Final = re.compile(r"[a-z_]{1,32}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_MAX_BY_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class End:
    """How a canary ended."""

    how: str
    """`promoted`, `taken_back`, or another word of a later version."""
    why: str
    """For people: the evidence in a line."""
    at: str
    """RFC 3339."""


@dataclass(frozen=True, slots=True)
class CanaryRecord:
    """One canary: as long as it runs with its content, and then with its end."""

    id: str
    """Unique; the same canary begun again has another one."""
    by: str
    """Who, on which machine."""
    since: str
    """RFC 3339, by the clock of who wrote it."""
    lasts_s: float
    """How long a node may take the content after it has first seen this id."""
    nodes: tuple[str, ...]
    observe_s: float
    base: str
    """SHA-256 of the key's content that it is to replace."""
    content_hash: str
    """SHA-256 of the content."""
    content: str | None
    """The lb.yaml; None once it has ended."""
    ended: End | None = None

    def encode(self) -> bytes:
        """Write it as its key has it."""
        value: dict[str, Any] = {"version": VERSION}
        value |= {each.name: getattr(self, each.name) for each in fields(self) if each.name != "ended"}
        if self.ended is not None:
            value["ended"] = {"how": self.ended.how, "why": self.ended.why, "at": self.ended.at}
        return json.dumps(value, ensure_ascii=False).encode()

    @property
    def short_id(self) -> str:
        """As much of the id as people need."""
        return self.id[:8]


def digest_of_content(raw: bytes) -> str:
    """Return what an lb.yaml's text is known by: its SHA-256."""
    return hashlib.sha256(raw).hexdigest()


def parse_record(raw: bytes) -> CanaryRecord:
    """Read a record.

    Raises:
        ValueError: It is none; the text says why.
    """
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - all that is wrong is one kind of error
    if value.get("version") != VERSION:
        raise ValueError(f"its version is not {VERSION}: another version of lb-control wrote it")
    ended = _end(value["ended"]) if value.get("ended") is not None else None
    content = value.get("content")
    if (content is None) is (ended is None):
        raise ValueError("it must have either content or ended")
    digest = _text(value, "content_hash", _DIGEST) if content is None else _digest(content)
    return CanaryRecord(
        id=_text(value, "id", _NAME),
        by=_line(value, "by", _MAX_BY_CHARS),
        since=_moment(value, "since"),
        lasts_s=_seconds(value, "lasts_s"),
        nodes=_nodes(value.get("nodes")),
        observe_s=_seconds(value, "observe_s"),
        base=_text(value, "base", _DIGEST),
        content_hash=digest,
        content=content,
        ended=ended,
    )


def _digest(content: object) -> str:
    if not isinstance(content, str) or not content:
        raise ValueError("content is no text")
    try:
        raw = content.encode()
    except UnicodeEncodeError:
        raise ValueError("content is no text") from None
    if len(raw) > MAX_CONTENT_BYTES:
        raise ValueError(f"content is larger than {MAX_CONTENT_BYTES} bytes")
    return digest_of_content(raw)


def _end(value: object) -> End:
    if not isinstance(value, dict):
        raise ValueError("ended is no object")  # noqa: TRY004 - as above
    return End(_text(value, "how", _WORD), _line(value, "why", MAX_WHY_CHARS), _moment(value, "at"))


def _nodes(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_NODES:
        raise ValueError(f"nodes is no list of 1 to {MAX_NODES} names")
    if not all(isinstance(each, str) and _NAME.fullmatch(each) for each in value):
        raise ValueError("nodes has something that is no name of a node")
    return tuple(value)


def _text(value: dict[str, Any], key: str, wanted: re.Pattern[str]) -> str:
    text = value.get(key)
    if not isinstance(text, str) or wanted.fullmatch(text) is None:
        raise ValueError(f"{key} is missing, or not what it should be")
    return text


def _line(value: dict[str, Any], key: str, most: int) -> str:
    text = value.get(key)
    if not isinstance(text, str) or len(text) > most:
        raise ValueError(f"{key} is no text of at most {most} characters")
    return "".join(char if char.isprintable() else " " for char in text)


def _seconds(value: dict[str, Any], key: str) -> float:
    number: Any = value.get(key)
    # not a boolean, which Python takes for a number; a NaN fails both comparisons
    if type(number) not in (int, float) or not 0 <= number <= MAX_LASTS_S:
        raise ValueError(f"{key} is no number of seconds from 0 to {MAX_LASTS_S:g}")
    return float(number)


def _moment(value: dict[str, Any], key: str) -> str:
    text = value.get(key)
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) and len(text) <= 40 else None  # noqa: PLR2004 - a date, a time, a zone
    except ValueError:
        moment = None
    # between date and time any character may stand
    if moment is None or moment.tzinfo is None or not str(text).isprintable():
        raise ValueError(f"{key} is no moment with its time zone")
    return str(text)


def seconds_of(moment: str) -> float:
    """Return an RFC 3339 text that `parse_record` let through as seconds since the epoch."""
    return datetime.fromisoformat(moment).timestamp()
