"""What differs from node to node in an lb.yaml that all of them run: `${NODE_IP}` and its like, taken from each node.

Theory of operation:

1. A variable may stand inside the values of `listen` (of services and of `defaults`), `cluster.node` and `cluster.address`.
   Elsewhere `${` is text as any other.
2. Only names that begin with `NODE_` are variables: an lb.yaml that comes from elsewhere must not read what else is in a
   process's environment. Of these, names that speak of a secret are none either, since every node tells the others what it has.
3. They are replaced once, before anything is checked; what results is checked as if it had been written so. What was
   written is kept: history and rollback have the variables.
4. Where a value is not known and need not be, a placeholder that fits its place stands in, so that the rest can be checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from schemas.errors import Path, shown
from schemas.reading.findings import Finding

PREFIX: Final = "NODE_"
FROM_AGENT: Final = ("NODE_NAME", "NODE_IP")
"""Those that a node's Consul agent knows as well."""
PLACEHOLDER: Final = "a placeholder"
"""The source of a value that nobody has given."""
VARIABLE_PATTERN: Final = r"\$\{NODE_[A-Z0-9_]+\}"
_USE: Final = re.compile(r"\$\{([^{}]*)(\}?)")
_NAME: Final = re.compile(r"NODE_[A-Z0-9_]{1,59}")
_SECRET: Final = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|AUTH|_KEY")
_VALUE_CHARS: Final = 255
_PLACES: Final[tuple[tuple[str, ...], ...]] = (
    ("services", "*", "listen"),
    ("defaults", "listen"),
    ("cluster", "node"),
    ("cluster", "address"),
)


class Known(NamedTuple):
    """One variable's value, and where it comes from, as messages call that."""

    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Variables:
    """What a node says of itself."""

    known: Mapping[str, Known] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Of those that are not known: where they were looked for."""
    why: str = "it was not looked for"
    """The same, of those that `unknown` does not have."""
    placeholders: bool = False
    """Whether those that are not known have placeholders, rather than being wrong."""
    passing: bool = False
    """Whether one that is not known may be at another time, with the same file."""


Look = Callable[[frozenset[str], Any], Variables]
"""Finds the variables of these names; it is told what the lb.yaml says of the Consul agent (`consul`, not checked)."""


class Replaced(NamedTuple):
    """A document with its variables replaced."""

    value: Any
    findings: list[Finding]
    said: Mapping[Path, str]
    """Where something was replaced, and what stands for what there, for messages about the result."""
    used: Mapping[str, Known]

    def note(self, path: Path) -> str:
        """Say what stands for the variables in a place, at the end of a message about it; empty: it has none."""
        told = [
            text for place, text in self.said.items() if place == path[: len(place)] or _is_below(place, path)
        ]
        return f"; {'; '.join(told)}" if told else ""


def _is_below(place: Path, path: Path) -> bool:
    """Tell whether a text is a part of a listener that a message is about."""
    return place[: len(path)] == path and "listen" in path


def is_name(name: str) -> bool:
    """Tell whether a variable may have this name."""
    return _NAME.fullmatch(name) is not None and _SECRET.search(name) is None


def is_value(text: str) -> bool:
    """Tell whether a variable may have this value: an empty one is none."""
    return 0 < len(text) <= _VALUE_CHARS and text.isprintable()


NOT_SET: Final = "it is not set in the environment, or empty there"


def from_environment(environ: Mapping[str, str]) -> dict[str, Known]:
    """Return the variables of an environment; one that is set and empty counts as unset."""
    return {
        name: Known(value, "the environment")
        for name, value in environ.items()
        if name.startswith(PREFIX) and is_name(name) and is_value(value)
    }


def variables_in(document: Any) -> frozenset[str]:
    """Return the names of the variables that a document uses where it may."""
    return frozenset(_placeholders(document))


def replaced(document: Any, variables: Variables) -> Replaced:
    """Replace all variables of a document, which itself is not changed.

    Each that cannot be replaced is a finding, and has a placeholder, so that it hides nothing else that is wrong.
    """
    values = {**_placeholders(document), **variables.known}
    findings: list[Finding] = []
    said: dict[Path, str] = {}
    used: dict[str, Known] = {}

    def change(path: Path, text: str) -> str:
        wrong = dict.fromkeys(filter(None, (_wrong(use, variables) for use in _USE.finditer(text))))
        findings.extend(Finding(path, message) for message in wrong)
        names = dict.fromkeys(use[1] for use in _USE.finditer(text) if use[1] in values)
        if names and not wrong:
            said[path] = ", ".join(
                f"${{{name}}} is {shown(values[name].value)} ({values[name].source})" for name in names
            )
        used.update((name, values[name]) for name in names)
        return _USE.sub(lambda use: values[use[1]].value if use[1] in names else use[0], text)

    return Replaced(_changed(document, change), findings, said, used)


def _wrong(use: re.Match[str], variables: Variables) -> str | None:
    """Say what is wrong with one use of a variable."""
    name, closed = use.groups()
    if not closed:
        return f"has {shown(use[0])} without its closing brace"
    if not name.startswith(PREFIX) or _NAME.fullmatch(name) is None:
        return f"may have variables whose names begin with NODE_, in capital letters, such as ${{NODE_IP}}, not {shown(use[0])}"
    if not is_name(name):
        return f"must not have {shown(use[0])}: its name speaks of a secret, and nodes tell each other what variables they have"
    if name in variables.known or variables.placeholders:
        return None
    return f"has ${{{name}}}, which is not known: {variables.unknown.get(name, variables.why)}"


def _placeholders(document: Any) -> dict[str, Known]:
    """Return a value for each variable that fits the place where it is used first; no two have the same."""
    found: dict[str, Known] = {}

    def look(path: Path, text: str) -> str:
        for use in _USE.finditer(text):
            if is_name(use[1]) and use[1] not in found:
                fits = _fitting(len(found) % 250 + 1, path, text[: use.start()], text[use.end() :])
                found[use[1]] = Known(fits, PLACEHOLDER)
        return text

    _changed(document, look)
    return found


def _fitting(number: int, path: Path, before: str, after: str) -> str:
    """Return what can stand between two pieces of text."""
    host = f"192.0.2.{number}"  # RFC 5737: for documentation
    if before.endswith("["):
        return f"2001:db8::{number:x}"
    if before.endswith("%"):
        return f"eth{number}"
    if before.endswith("://") or (not before and after.startswith(":")):
        return host
    if before.endswith(":") and before != "unix:":
        return str(40000 + number)
    if not before and not after and "node" not in path:
        return (
            f"http://{host}:9100" if "address" in path and "cluster" in path else f"{host}:{40000 + number}"
        )
    return (
        str(number)
        if before[-1:].isdigit() or before.endswith(".") or after.startswith(".")
        else f"node-{number}"
    )


def _changed(document: Any, change: Callable[[Path, str], str]) -> Any:
    """Return a document with each text replaced that stands where variables may."""
    for place in _PLACES:
        document = _changed_at(document, place, (), change)
    return document


def _changed_at(value: Any, place: tuple[str, ...], path: Path, change: Callable[[Path, str], str]) -> Any:
    if isinstance(value, str) and not place:
        return change(path, value) if "${" in value else value
    if isinstance(value, dict):
        keys = value.keys() if place[:1] in ((), ("*",)) else value.keys() & {place[0]}
        return {**value, **{key: _changed_at(value[key], place[1:], (*path, key), change) for key in keys}}
    if isinstance(value, list) and not place:
        return [_changed_at(each, (), (*path, index), change) for index, each in enumerate(value)]
    return value
