"""Turns what pydantic says about a value into problems for people: a path, what is wrong, what is allowed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from schemas.errors import MAX_PROBLEMS, InvalidDocument, Path, Problem, format_path, shown

M = TypeVar("M", bound=BaseModel)
_KEYS_SHOWN: Final = 24

_SYNONYMS: Final[Mapping[str, tuple[str, ...]]] = {
    "addr": ("address",),
    "algorithm": ("mode",),
    "backup": ("tier",),
    "balance": ("mode",),
    "bind": ("listen",),
    "check": ("health", "active"),
    "checks": ("health", "active"),
    "healthcheck": ("health", "active"),
    "health_check": ("health", "active"),
    "host": ("address",),
    "max_connections": ("limits", "connections"),
    "maxconn": ("limits", "connections"),
    "port": ("listen", "address"),
    "ports": ("listen",),
    "proxy": ("proxy_protocol",),
    "server": ("backends", "address"),
    "servers": ("backends",),
    "timeout": ("timeouts",),
    "upstream": ("backends",),
    "upstreams": ("backends",),
}
"""How others call a key, in small letters and with _ for a hyphen, and its names here: the first that its place knows."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem before its place is known as text."""

    path: Path
    message: str
    at_key: bool = False
    """Whether the key is wrong rather than its value."""
    kind: str = ""
    """pydantic's word for it, or `refused`."""
    about: tuple[Path, ...] = ()
    """Of what is refused: the values that contradict each other."""


def findings_of(error: ValidationError, model: type[BaseModel], prefix: Path = ()) -> list[Finding]:
    """List all that a failed validation of a model found; `prefix` is where it stands in the document."""
    found: list[Finding] = []
    for detail in error.errors(include_url=False)[:MAX_PROBLEMS]:
        path = (*prefix, *detail["loc"])
        kind = detail["type"]
        if path[-1:] == ("[key]",):  # how pydantic marks a mapping's key
            found.append(Finding(path[:-1], _message(detail), at_key=True, kind=kind))
        elif kind == "refused":
            about = tuple((*path, key) for key in detail["ctx"]["about"])
            found += [
                Finding((*path, *below), message, kind=kind, about=about)
                for below, message in detail["ctx"]["problems"][:MAX_PROBLEMS]
            ]
        elif kind == "extra_forbidden":
            known = _keys_at(model, detail["loc"][:-1])
            found.append(
                Finding(path, f"unknown key; {closest(str(path[-1]), known)}", at_key=True, kind=kind)
            )
        elif kind != "default_factory_not_called":  # only follows another error of the same model
            found.append(Finding(path, _message(detail), kind=kind))
    return found


def to_problems(findings: list[Finding], root: object) -> tuple[Problem, ...]:
    """Turn findings about a value that is no text into problems without a line."""
    return tuple(Problem(format_path(visible_path(one, root)), one.message) for one in findings)


def validated(model: type[M], value: object, prefix: Path = ()) -> tuple[list[Finding], M | None]:
    """Validate a value, which stands at `prefix`; return what is wrong, or what it is."""
    try:
        return [], model.model_validate(value)
    except ValidationError as error:
        return findings_of(error, model, prefix), None


def checked(model: type[M], data: object) -> M:
    """Check a decoded body. InvalidDocument has every problem found, by path."""
    findings, made = validated(model, data)
    if made is None:
        raise InvalidDocument(to_problems(findings, data))
    return made


def find(root: object, path: Path) -> tuple[int, object]:
    """Walk as far along a path as the value goes; return the number of steps that exist, and what stands there."""
    for steps, part in enumerate(path):
        if isinstance(root, Mapping):
            if part not in root:
                return steps, root
            root = root[part]
        elif isinstance(root, (list, tuple)) and isinstance(part, int) and part < len(root):
            root = root[part]
        else:
            return steps, root
    return len(path), root


def _nearest(word: str, known: list[str]) -> list[str]:
    """Return the one of the known words that looks most like it, if one does."""
    import difflib  # noqa: PLC0415 - a start does not wait for what only mistakes need

    return difflib.get_close_matches(word, known, n=1)


def closest(word: str, known: list[str]) -> str:
    """Suggest what the word is called here, or the nearest of the known words, or name them all."""
    for synonym in _SYNONYMS.get(word.lower().replace("-", "_"), ()):
        if synonym in known:
            return f"did you mean {synonym}?"
    near = _nearest(word, known)
    if near:
        return f"did you mean {near[0]}?"
    more = ", ..." if len(known) > _KEYS_SHOWN else ""
    return f"known are {', '.join(known[:_KEYS_SHOWN])}{more}"


def visible_path(finding: Finding, root: object) -> Path:
    """Cut off steps into what the document writes in a short form (one address for a list or an object)."""
    path = finding.path
    steps, value = find(root, path)
    if (
        steps < len(path) and isinstance(value, Mapping) and path[steps] == 0
    ):  # one mapping for a list of them
        path = (*path[:steps], *path[steps + 1 :])
        steps, value = find(root, path)
    if steps < len(path) and not isinstance(value, (Mapping, list, tuple)):
        return path[:steps]
    return path


def _keys_at(model: type[BaseModel], loc: Path) -> list[str]:
    """List the keys that the model at a path knows."""
    inside = 0
    for part in loc:
        if isinstance(part, int) or inside:  # the step into a list or a mapping of models
            inside = max(0, inside - 1)
            continue
        field = next(one for name, one in model.model_fields.items() if part in {name, one.alias})
        model = next(_models_in(field.annotation))
        inside = _mappings_in(field.annotation)
    return [field.alias or name for name, field in model.model_fields.items()]


def _mappings_in(annotation: Any) -> int:
    """Count the mappings around the model of an annotation."""
    return (get_origin(annotation) is dict) + sum(map(_mappings_in, get_args(annotation)))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


_WANTED: Final = {
    "int_type": "must be a whole number, not {input}",
    "int_from_float": "must be a whole number, not {input}",
    "float_type": "must be a number, not {input}",
    "finite_number": "must be a finite number, not {input}",
    "model_type": "must be a mapping, not {input}",
    "dict_type": "must be a mapping, not {input}",
    "tuple_type": "must be a list, not {input}",
    "string_type": "must be text, not {input}",
    "greater_than_equal": "must be at least {ge}, not {input}",
    "less_than_equal": "must be at most {le}, not {input}",
    "too_long": "must be at most {max_length} characters long",
    "too_short": "must not be empty",
    "missing": "is required",
}


def _message(detail: ErrorDetails) -> str:
    context = {**detail.get("ctx", {}), "input": shown(detail["input"])}
    if detail["type"] == "literal_error":
        return _not_one_of(detail["input"], context["expected"])
    if detail["type"] in _WANTED:
        return _WANTED[detail["type"]].format_map(context)
    return str(context.get("error", detail["msg"]))


def _not_one_of(value: object, expected: str) -> str:
    words = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
    if len(words) == 1:
        return f"must be {words[0]}, not {shown(value)}"
    near = _nearest(value, words) if isinstance(value, str) else []
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"must be one of {', '.join(words)}, not {shown(value)}{hint}"


# --- problems behind the first ones ------------------------------------------------------------------

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

    A model checks how its values fit together only when each of them is right. So what was found wrong is taken out,
    its default or a stand-in takes its place, and the rest is checked again: one mistake does not hide another.

    Returns the findings, and what the value is: without findings exactly that; else what is right of it, with defaults
    and stand-ins for the rest, or None.
    """
    found, made = validated(model, value)
    if made is not None or len(found) >= MAX_PROBLEMS or not isinstance(value, dict):
        return found, made
    rest = copy.deepcopy(value)
    latest = found
    touched: list[Path] = []
    for _ in range(_ROUNDS):
        for finding in latest:
            for path in finding.about or (finding.path,):
                _replace(rest, path, len(touched), missing=finding.kind == "missing")
                touched.append(path)
        latest, made = validated(model, rest)
        if made is not None:
            break
        found = found + [one for one in latest if one.kind == "refused" and not _follows(one, touched)]
    return found, made


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
