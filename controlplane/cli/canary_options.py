"""The options of a change for many nodes: what they are, and which of them fit together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import click

from controlplane.cli.settings import Kind

OBSERVE_S: Final = 60.0
_NEEDS: Final = {
    "--wait": "--to",
    "--canary": "--to",
    "--take-back": "--to",
    "--observe": "--canary",
    "--min-connections": "--canary",
}
_EXCLUDES: Final = {
    "--take-back": ("FILE", "--wait", "--canary", "--force", "--max-remap"),
    "--canary": ("--force",),
}


def _nodes(text: str) -> int | tuple[str, ...]:
    """Read a number, or names with commas."""
    if text.isascii() and text.isdecimal():
        if int(text) < 1:
            raise ValueError("must be at least 1")
        return int(text)
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not all(names):
        raise ValueError("must be a number of nodes, or their names, such as lb-1,lb-2")
    return names


NODES = Kind("nodes", _nodes)
"""`1`, or `lb-1,lb-2`."""


def check_together(given: Mapping[str, object]) -> None:
    """Stop a command whose options do not fit together, with a usage error."""
    there = {name for name, value in given.items() if value is not None and value is not False}
    for name in _NEEDS:
        if name in there and _NEEDS[name] not in there:
            raise click.UsageError(f"{name} needs {_NEEDS[name]}")
        if name in there and (
            other := next((each for each in _EXCLUDES.get(name, ()) if each in there), None)
        ):
            raise click.UsageError(f"{name} and {other} exclude each other")
    if "FILE" not in there and "--take-back" not in there:
        raise click.UsageError("Missing argument 'FILE'.")
