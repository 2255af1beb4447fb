"""What a node tells the others of itself: the value of its key in Consul.

What comes from there anybody may have written who may write there, or another version of us. So it is bounded, and each field is
checked. Fields that are not known are ignored, and what is missing is not known: versions can be mixed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Final, cast

VERSION: Final = 1
MAX_BYTES: Final = 64 * 1024
REST: Final = "*"
"""Stands for all services that a record has no room for."""
_ROOM: Final = {"table_hashes": 4 * 1024, "outcomes": 22 * 1024, "variables": 6 * 1024}
"""Bytes for each of these; what else there is has less than the rest. That of hashes is the same on all nodes, or what is left over
could not be compared."""
_MAX_TEXT: Final = 1000
_MAX_SHORT: Final = 255
_MAX_COUNT: Final = 2**63
_NAME: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}")
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


@dataclass(frozen=True, slots=True)
class FirstByte:
    """Times from connected to the backend's first byte, in milliseconds; cumulative."""

    count: int = 0
    sum: float = 0.0
    buckets: Mapping[str, int] = field(default_factory=dict)
    """How many were at most as long as the bound and longer than the one below, by the bound: `2.5`, `+Inf`. None: left out."""

    def __add__(self, other: FirstByte) -> FirstByte:
        return FirstByte(self.count + other.count, self.sum + other.sum, _added(self.buckets, other.buckets))


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What the clients of a service met on one node, counted since it started, and the backends that it has now."""

    connections: int = 0
    """Clients accepted."""
    failures: int = 0
    """Those that got no backend, or whose backend broke off, by no doing of their own."""
    ejections: int = 0
    usable: int = 0
    backends: int = 0
    first_byte_ms: FirstByte = field(default_factory=FirstByte)

    def __add__(self, other: Outcomes) -> Outcomes:
        return Outcomes(
            self.connections + other.connections,
            self.failures + other.failures,
            self.ejections + other.ejections,
            self.usable + other.usable,
            self.backends + other.backends,
            self.first_byte_ms + other.first_byte_ms,
        )


@dataclass(frozen=True, slots=True)
class Draining:
    """How far the node has got with being drained."""

    phase: str
    by: str
    since: str


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One node, as it sees itself. Moments are RFC 3339 in UTC, as `now_text` writes them."""

    node: str
    at: str
    """When it was written."""
    started: str = ""
    """When the node's daemon began; its counters begin there, too. Empty: not known."""
    livelb: str = ""
    """The version of the program."""
    address: str | None = None
    """Where its API is for others."""
    left: str | None = None
    """When it ended in good order; None: it did not."""
    key: str | None = None
    """The key that its lb.yaml is in; None: it follows none."""
    content: str | None = None
    """SHA-256 of the lb.yaml that it has taken, in hex; None: none, or somebody has applied something else there."""
    canary: str | None = None
    """The id of the canary whose content that is."""
    generation: int = 0
    hash: str = ""
    """Of the snapshot; it has the backends that were discovered, and what differs from node to node, in it."""
    converged: bool = False
    """Whether all its data planes run that generation and hash."""
    error: str | None = None
    """Why the newest lb.yaml is not what runs."""
    ready: bool = False
    reason: str = ""
    """Why it is not ready."""
    since: str = ""
    """Since when it is ready, or is not."""
    drain: Draining | None = None
    table_hashes: Mapping[str, str] = field(default_factory=dict)
    """By sticky service; under `*` one for all that there is no room for."""
    active: int = 0
    """Clients' connections now."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """What an lb.yaml can take from the node, by name."""
    uses: tuple[str, ...] = ()
    """Which of them its own does: with another value of one, it has another hash by right."""
    share: int | None = None
    """By how many nodes limits of the whole cluster are divided here; None: there are none."""
    outcomes: Mapping[str, Outcomes] = field(default_factory=dict)
    """By service, under `*` the sum of all that there is no room for."""

    def without_numbers(self) -> NodeRecord:
        """Return what is news when it changes: all but the counters, and when they were written."""
        return replace(self, at="", active=0, outcomes={})

    def encode(self, room: float = 1.0) -> bytes:
        """Return it as JSON, of at most 64 KiB: of too many services the busiest are told one by one.

        Args:
            room: The share of the room for single services' outcomes that this node has, among many: see `record_pace`.
        """
        told = {"version": VERSION, **asdict(self)}
        told |= {
            **{name: _cut(getattr(self, name)) for name in ("error", "reason", "key")},
            "table_hashes": _fitting(sorted(self.table_hashes.items()), _ROOM["table_hashes"], _one_hash),
            "variables": _fitting(sorted(self.variables.items()), _ROOM["variables"], lambda _: "…"),
            "outcomes": _fitting(
                sorted(self.outcomes.items(), key=lambda item: (-item[1].connections, item[0])),
                room * _ROOM["outcomes"],
                _sum,
            ),
        }
        return _json(told)

    @classmethod
    def parse(cls, raw: bytes) -> NodeRecord:
        """Read one, or raise a ValueError that says what is wrong with it."""
        if len(raw) > MAX_BYTES:
            raise ValueError(f"{len(raw)} bytes are too many")
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError):
            raise ValueError("no JSON") from None
        told = _mapping(value, "the record")
        if told.get("version") != VERSION:
            raise ValueError(f"version is {_shown(told.get('version'))}, and only {VERSION} is understood")
        for name in ("node", "at"):
            if not told.get(name):
                raise ValueError(f"{name} is missing")
        known = {each.name for each in fields(cls)}
        return cls(
            **{
                name: _READ[name](told[name], name)
                for name in told.keys() & known
                if told[name] is not None and told[name] != ""
            }
        )


def _added(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in [*one, *(other.keys() - one.keys())]}


# --- writing


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=asdict).encode(
        "utf-8", "replace"
    )


def _printable(text: str) -> str:
    """Have no control character in it: whoever prints it need not think of what that could do to a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def _cut(text: str | None) -> str | None:
    if text is None:
        return None
    return _printable(text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 1]}…")


def _fitting(items: Iterable[tuple[str, Any]], room: float, joined: Any) -> dict[str, Any]:
    """Return as many of these as there is room for, in bytes, and the others joined as one."""
    fit, rest = {}, []
    for name, value in items:
        room -= len(_json({name: value}))
        if room < 0:
            rest.append((name, value))
        else:
            fit[name] = value
    return fit | ({REST: joined(rest)} if rest else {})


def _one_hash(rest: list[tuple[str, str]]) -> str:
    return hashlib.sha256(json.dumps(rest).encode()).hexdigest()[:16]


def _sum(rest: list[tuple[str, Outcomes]]) -> Outcomes:
    return sum((one for _, one in rest), Outcomes())


# --- reading


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"  # noqa: PLR2004 - enough to find it


def _mapping(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be an object, not {_shown(value)}")  # noqa: TRY004 - all that is wrong is one kind of error
    return value


def _text(most: int) -> Any:
    def read(value: object, name: str) -> str:
        if not isinstance(value, str) or len(value) > most:
            raise ValueError(f"{name} must be text of at most {most} characters, not {_shown(value)}")
        return _printable(value)

    return read


def _like(pattern: re.Pattern[str], what: str) -> Any:
    def read(value: object, name: str) -> str:
        if not isinstance(value, str) or pattern.fullmatch(value) is None:
            raise ValueError(f"{name} must be {what}, not {_shown(value)}")
        return value

    return read


def _moment(value: object, name: str) -> str:
    text: str = _like(_MOMENT, "a moment in UTC")(value, name)
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{name} must be a moment in UTC, not {_shown(value)}: {error}") from None
    return text


def _count(value: object, name: str) -> int:
    if type(value) is not int or not 0 <= value < _MAX_COUNT:
        raise ValueError(f"{name} must be a whole number from 0, not {_shown(value)}")
    return value


def _number(value: object, name: str) -> float:
    # bounded like a count: Python reads whole numbers from JSON that are too large for a float
    if type(value) not in (int, float) or not 0 <= cast("float", value) < _MAX_COUNT:
        raise ValueError(f"{name} must be a number from 0, not {_shown(value)}")
    return float(cast("float", value))


def _truth(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, not {_shown(value)}")  # noqa: TRY004 - as above
    return value


def _each(read: Any) -> Any:
    def read_all(value: object, name: str) -> dict[str, Any]:
        inner = _mapping(value, name).items()
        return {
            _text(_MAX_SHORT)(key, name): read(one, f"{name}.{_printable(key[:40])}") for key, one in inner
        }

    return read_all


def _texts(value: object, name: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list, not {_shown(value)}")  # noqa: TRY004 - as above
    return tuple(_text(_MAX_SHORT)(each, name) for each in value)


def _object(cls: Any, readers: Mapping[str, Any]) -> Any:
    def read(value: object, name: str) -> Any:
        told = _mapping(value, name)
        return cls(**{key: readers[key](told[key], f"{name}.{key}") for key in readers if key in told})

    return read


_FIRST_BYTE: Final = _object(FirstByte, {"count": _count, "sum": _number, "buckets": _each(_count)})
_OUTCOMES: Final = _object(
    Outcomes,
    {
        **dict.fromkeys(("connections", "failures", "ejections", "usable", "backends"), _count),
        "first_byte_ms": _FIRST_BYTE,
    },
)


def _draining(value: object, name: str) -> Draining:
    told = _mapping(value, name)
    read = {key: _text(_MAX_SHORT)(told.get(key, ""), f"{name}.{key}") for key in ("phase", "by")}
    return Draining(**read, since=_moment(told.get("since"), f"{name}.since"))


_READ: Final[Mapping[str, Any]] = {
    "node": _like(_NAME, "a node's name"),
    "at": _moment,
    "started": _moment,
    "livelb": _text(_MAX_SHORT),
    "address": _text(_MAX_SHORT),
    "left": _moment,
    "key": _text(_MAX_TEXT),
    "content": _like(_HEX, "a SHA-256 in hex"),
    "canary": _text(_MAX_SHORT),
    "generation": _count,
    "hash": _text(_MAX_SHORT),
    "converged": _truth,
    "error": _text(_MAX_TEXT),
    "ready": _truth,
    "reason": _text(_MAX_TEXT),
    "since": _moment,
    "drain": _draining,
    "table_hashes": _each(_text(_MAX_SHORT)),
    "active": _count,
    "variables": _each(_text(_MAX_TEXT)),
    "uses": _texts,
    "share": _count,
    "outcomes": _each(_OUTCOMES),
}
