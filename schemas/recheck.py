"""Looks for further problems behind the first ones.

A model checks how its values fit together only when each of them is right. So what was found wrong is taken out,
its default takes its place, and the rest is checked again: one mistake does not hide another.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from schemas.errors import Path
from schemas.findings import Finding, findings_of

__all__ = ["check_all"]

M = TypeVar("M", bound=BaseModel)

# Each round ends the hiding by one level of models; ours are four deep.
_ROUNDS = 6


def check_all(model: type[M], value: object, *, fill: Mapping[str, object]) -> tuple[list[Finding], M | None]:
    """Validate a value and report all that is wrong with it.

    Args:
        model: What it should be.
        value: Plain data; not changed.
        fill: Stands in for required keys at the root, while the search goes on without them.

    Returns:
        The findings, and what the value is: without findings exactly that, else what is right of it with defaults
        for the rest, or None.
    """
    try:
        return [], model.model_validate(value)
    except ValidationError as error:
        found = findings_of(error, model)
    if not isinstance(value, dict):
        return found, None
    rest = copy.deepcopy(value)
    latest = found
    for _ in range(_ROUNDS):
        for finding in sorted(latest, key=_deepest_first):
            _take_out(rest, finding)
        for key, dummy in fill.items():
            rest.setdefault(key, dummy)
        try:
            return found, model.model_validate(rest)
        except ValidationError as error:
            latest = findings_of(error, model)
        found += [finding for finding in latest if finding.kind == "refused" and not _follows(finding, found)]
    return found, None


def _follows(finding: Finding, earlier: list[Finding]) -> bool:
    """Tell whether it concerns a value that was wrong before, so that it may be about the default instead."""
    return any(
        one.path[: len(about)] == about or about[: len(one.path)] == one.path
        for about in finding.about
        for one in earlier
    )


def _deepest_first(finding: Finding) -> int:
    return -len(finding.path)


def _take_out(root: dict[str, Any], finding: Finding) -> None:
    # Without a required key its mapping is no good; at the root `fill` takes care of that.
    path: Path = finding.path
    if finding.kind == "missing" and len(path) > 1:
        path = path[:-1]
    # A list must keep its indices, so it goes as a whole.
    while path and isinstance(path[-1], int):
        path = path[:-1]
    holder: Any = root
    for part in path[:-1]:
        try:
            holder = holder[part]
        except (KeyError, IndexError, TypeError):
            return  # taken out already, or a short form
    if path and isinstance(holder, dict):
        holder.pop(path[-1], None)
