"""Where the parts of a document stand: a tree beside its value, and what is wrong with its notation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from schemas.errors import Path, Problem, format_path

__all__ = ["MAX_DEPTH", "Broken", "Flaw", "Place", "too_deep"]

MAX_DEPTH: Final = 32


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
