"""What is wrong with a document: one problem each, and the exception that carries them all."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

_KINDS: Final = {dict: "a mapping", list: "a list", tuple: "a list", type(None): "nothing"}

Path = tuple[str | int, ...]
"""Where something stands in a document: keys and list indices from its root."""

MAX_PROBLEMS: Final = 1000
"""Looked for and reported at most: nobody reads more, and a hostile document must not cost more."""

_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")
_SHOWN_CHARS: Final = 60


def format_path(path: Path) -> str:
    """Write a path as `services.web.backends[1].weight`; a key with odd characters as `["a.b"]`."""
    parts: list[str] = []
    for part in path:
        if isinstance(part, int):
            parts.append(f"[{part}]")
        elif _PLAIN_KEY.fullmatch(part):
            parts.append(f".{part}" if parts else part)
        else:
            parts.append(f"[{shown(part)}]")
    return "".join(parts)


def shown(value: object) -> str:
    """Write a value for a message: short, on one line, without control characters."""
    if type(value) in _KINDS:
        return _KINDS[type(value)]
    if not isinstance(value, str):
        return json.dumps(value, default=repr)
    cut = value if len(value) <= _SHOWN_CHARS else value[: _SHOWN_CHARS - 3] + "..."
    return json.dumps(cut, ensure_ascii=not cut.isprintable())


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where."""

    path: str
    """As `format_path` writes it; empty for the whole document."""
    message: str
    """What is wrong, and what is allowed instead."""
    line: int | None = None
    """From 1; None when the document is no text (a decoded body, the environment)."""
    column: int | None = None
    """From 1, in characters."""

    def __str__(self) -> str:
        where = f"line {self.line}, column {self.column}: " if self.line is not None else ""
        return f"{where}{self.path}: {self.message}" if self.path else f"{where}{self.message}"


@dataclass(eq=False)
class InvalidDocument(Exception):  # noqa: N818 - the agreed name; what it carries are values, not a failure of ours
    """A document was refused as a whole."""

    problems: tuple[Problem, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))

    def details(self) -> list[dict[str, str]]:
        """Return the problems as the API's `details`: a list of `{path, message}`."""
        return [{"path": problem.path, "message": problem.message} for problem in self.problems]
