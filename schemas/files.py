"""Which keys of lb.yaml name files, and what they are relative to: the folder of the lb.yaml that names them.

Whoever reads an lb.yaml knows its folder; the daemon, the history and a later start do not. So a relative path is made
absolute when the lb.yaml is read, and nobody after that needs to know where it came from.
"""

from __future__ import annotations

import functools
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, Field

from schemas.fields import Text

__all__ = ["FilePath", "with_absolute_files"]


class _NamesFile:
    """Marks a text that is the path of a file."""


FilePath = Annotated[Text, Field(min_length=1), _NamesFile()]
"""The path of a file; a relative one starts at lb.yaml's folder."""

_UNIONS: Final = (Union, UnionType)
_ANY: Final = object()


def with_absolute_files(value: Any, kind: Any, folder: Path) -> Any:
    """Return a value in which every path of a file is absolute; what is wrong with it stays as it is.

    Args:
        value: Plain values, as they were written, checked or not.
        kind: What it should be: a model, or an annotation of one's field.
        folder: What relative paths are relative to; absolute.
    """
    if not _names_files(kind):
        return value
    if isinstance(value, str):
        return str(folder / value) if value and any(map(_is_file, _kinds(kind))) else value
    if isinstance(value, dict):
        return {key: _first(each, _inside(kind, key), folder) for key, each in value.items()}
    if isinstance(value, list):
        return [_first(each, _inside(kind, None), folder) for each in value]
    return value


def _first(value: Any, kinds: list[Any], folder: Path) -> Any:
    """Return the value as the first of the kinds that changes it would have it."""
    changed = (with_absolute_files(value, each, folder) for each in kinds)
    return next((each for each in changed if each is not value), value)


def _kinds(annotation: Any) -> list[Any]:
    """List what an annotation allows: models, containers, and marked texts as they are annotated."""
    if get_origin(annotation) in _UNIONS:
        return [kind for each in get_args(annotation) for kind in _kinds(each)]
    if get_origin(annotation) is Annotated and not _is_file(annotation):
        return _kinds(get_args(annotation)[0])
    return [] if annotation is NoneType else [annotation]


def _is_file(annotation: Any) -> bool:
    return get_origin(annotation) is Annotated and any(
        isinstance(each, _NamesFile) for each in get_args(annotation)
    )


def _inside(kind: Any, key: object) -> list[Any]:
    """List the annotations of what stands in a value of this kind: under a key, in a list (None), or anywhere (_ANY)."""
    found: list[Any] = []
    for each in _kinds(kind):
        if isinstance(each, type) and issubclass(each, BaseModel):
            found += [
                field.rebuild_annotation()
                for name, field in each.model_fields.items()
                if key is _ANY or (key is not None and key in {name, field.alias})
            ]
        elif get_origin(each) is dict and key is not None:
            found.append(get_args(each)[1])
        elif get_origin(each) in {tuple, list} and key in {None, _ANY}:
            found += [item for item in get_args(each) if item is not Ellipsis]
    return found


@functools.cache
def _names_files(kind: Any) -> bool:
    """Tell whether any path of a file can stand in it: 10,000 backends need not be looked at."""
    return any(map(_is_file, _kinds(kind))) or any(map(_names_files, _inside(kind, _ANY)))
