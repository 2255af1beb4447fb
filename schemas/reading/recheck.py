"""Looks for further problems behind the first ones.

A model checks how its values fit together only when each of them is right. So what was found wrong is taken out,
its default or a stand-in takes its place, and the rest is checked again: one mistake does not hide another.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from schemas.errors import MAX_PROBLEMS, Path
from schemas.reading.findings import Finding, find, findings_of

__all__ = ["check_all"]

M = TypeVar("M", bound=BaseModel)

# Each round ends the hiding by one level of models; ours are five deep.
_ROUNDS: Final = 8
# For keys without a default. Names and zones that nobody uses clash with nothing.
_STAND_INS: Final[dict[str | int, Callable[[int], object]]] = {
    "address": lambda n: f"stand-in-{n}.invalid:1",
    "backends": lambda _: [],
    "generation": lambda _: 0,
    "listen": lambda n: f"[fe80::1%stand-in-{n}]:1",
    "service": lambda n: f"stand-in-{n}",
    "services": lambda _: {},
}


def check_all(model: type[M], value: object) -> tuple[list[Finding], M | None]:
    """Validate a value, which is not changed, and report all that is wrong with it.

    Returns:
        The findings, and what the value is: without findings exactly that; else what is right of it, with defaults
        and stand-ins for the rest, or None.
    """
    try:
        return [], model.model_validate(value)
    except ValidationError as error:
        found = findings_of(error, model)
        enough = error.error_count() >= MAX_PROBLEMS
    if enough or not isinstance(value, dict):
        return found, None
    rest = copy.deepcopy(value)
    latest = found
    touched: list[Path] = []
    for _ in range(_ROUNDS):
        for finding in latest:
            for path in finding.about or (finding.path,):
                _replace(rest, path, len(touched), missing=finding.kind == "missing")
                touched.append(path)
        try:
            return found, model.model_validate(rest)
        except ValidationError as error:
            latest = findings_of(error, model)
        found = found + [one for one in latest if one.kind == "refused" and not _follows(one, touched)]
    return found, None


def _follows(finding: Finding, touched: list[Path]) -> bool:
    """Tell whether it concerns a value that was replaced, so that it may be about the replacement instead."""
    return any(
        path[: len(about)] == about or about[: len(path)] == path
        for about in finding.about
        for path in touched
    )


def _replace(root: dict[str, Any], path: Path, count: int, *, missing: bool) -> None:
    """Put a stand-in in the place of a value, or nothing if it has a default."""
    if "listen" in path:  # whichever of its forms it has
        path = path[: path.index("listen") + 1]
    while path and isinstance(path[-1], int):  # a list must keep its indices, so it goes as a whole
        path = path[:-1]
    if not path:
        return
    *above, key = path
    _, holder = find(root, tuple(above))
    if key in _STAND_INS:
        value = _STAND_INS[key](count)
        if isinstance(holder, dict):
            holder[key] = value
        elif isinstance(holder, str):  # a short form in a list
            _, items = find(root, tuple(above[:-1]))
            items[above[-1]] = {key: value}  # type: ignore[index]  # what holds a part of a path is a container
    elif missing and above:  # a mapping without a required key is no good
        _replace(root, tuple(above), count, missing=False)
    elif isinstance(holder, dict):
        holder.pop(key, None)
