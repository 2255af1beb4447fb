"""How a change is asked for: how careful it is, who asks, and when; and how that travels to the daemon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from controlplane.errors import InputError
from schemas.quantities import parse_duration, parse_percent


@dataclass(frozen=True, slots=True)
class ApplyOptions:
    """How careful an apply is."""

    timeout_s: float = 30.0
    """For the whole of it."""
    max_remap: float | None = None
    """Largest share (0..1) of any service's sticky clients that may move; None: any."""
    force: bool = False
    """Overwrite what somebody else has pushed meanwhile, and release what discovery's guard holds."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who changes something, and how."""

    by: str
    kind: str
    """`apply`, `file`, `rollback`, `discovery` or `cluster`."""


def now_text() -> str:
    """Return the wall clock as RFC 3339 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def query_of_options(options: ApplyOptions) -> dict[str, str]:
    """Write the options as a query."""
    query = {"timeout": f"{round(options.timeout_s * 1000)}ms"}
    if options.max_remap is not None:
        query["max_remap"] = f"{options.max_remap * 100:.4g}%"
    if options.force:
        query["force"] = "true"
    return query


def options_of_query(query: Mapping[str, str]) -> ApplyOptions:
    """Read the options of a query; InputError if one is no duration, percentage or boolean, or is unknown."""
    fields = {"timeout": "timeout_s", "max_remap": "max_remap", "force": "force"}
    readers = {"timeout": parse_duration, "max_remap": parse_percent, "force": _boolean}
    values: dict[str, Any] = {}
    problems = []
    for key, text in query.items():
        try:
            values[fields[key]] = readers[key](text)
        except KeyError:
            problems.append({"path": key, "message": f"unknown; known are {', '.join(readers)}"})
        except ValueError as error:
            problems.append({"path": key, "message": str(error)})
    if problems:
        raise InputError("", problems)
    return ApplyOptions(**values)


def _boolean(text: object) -> bool:
    if text in {"true", "1"}:
        return True
    if text in {"false", "0"}:
        return False
    raise ValueError("must be true or false")
