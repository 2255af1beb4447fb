"""Kinds of option values: durations and percentages as in lb.yaml, where an lb.yaml can live; and options that many have."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from controlplane.desired.location import Home
    from controlplane.discovery.consul.key import KeySource

__all__ = [
    "DURATION",
    "HOME",
    "HOST_NAME",
    "KEY",
    "Kind",
    "as_json_option",
    "max_remap_option",
    "timeout_option",
]

T = TypeVar("T")


class Kind(click.ParamType[T]):
    """A kind of value.

    Args:
        name: What usage messages call it.
        read: Makes a value of text; raises ValueError with the words for what is none. Loads what it needs when it is used.
    """

    def __init__(self, name: str, read: Callable[[str], T]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:
        """Read a value, unless it is one already."""
        try:
            return self._read(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _duration(text: str) -> float:
    from schemas.fields import parse_duration  # noqa: PLC0415 - pydantic, only when such an option is used

    return parse_duration(text)


def _percent(text: str) -> float:
    from schemas.fields import parse_percent  # noqa: PLC0415 - pydantic, only when such an option is used

    return parse_percent(text)


def _host_name(text: str) -> str:
    from schemas.http.hosts import host_name  # noqa: PLC0415 - only the command that runs needs it

    return host_name(text)


def _home(text: str) -> Home:
    from controlplane.desired.location import FileSource  # noqa: PLC0415 - only the command that runs needs it
    from controlplane.discovery.consul.settings import PREFIX  # noqa: PLC0415 - the same

    if text.startswith(PREFIX):
        return _key(text)
    if text == "-" or _is_pipe(text):
        what = "standard input" if text == "-" else f"{text} is a pipe, and"
        raise ValueError(f"{what} cannot be watched; name a file, or apply it: lb-control apply {text}")
    return FileSource(Path(text))


def _is_pipe(path: str) -> bool:
    """Tell whether a pipe is there, as far as one may look: what cannot be looked at is tried again by the daemon."""
    try:
        return Path(path).is_fifo()
    except OSError:
        return False


def _key(text: str) -> KeySource:
    from controlplane.discovery.consul.key import KeySource  # noqa: PLC0415 - only the command that runs needs it
    from controlplane.discovery.consul.settings import PREFIX, settings_from_environment  # noqa: PLC0415 - the same

    if not text.startswith(PREFIX):
        raise ValueError(f"must be {PREFIX}PATH")
    return KeySource(text.removeprefix(PREFIX), settings_from_environment(os.environ, base=Path()))


DURATION = Kind("duration", _duration)
"""Seconds, from `30s`."""
HOST_NAME = Kind("name", _host_name)
"""As it is compared: lower case, and without the root's dot."""
HOME = Kind("file or key", _home)
"""A path, or `consul-kv:PATH`; the agent is the one that `CONSUL_HTTP_ADDR` and its like name."""
KEY = Kind("key", _key)
"""Only `consul-kv:PATH`."""

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
timeout_option = click.option(
    "--timeout", type=DURATION, default="30s", show_default=True, help="For all of it."
)
max_remap_option = click.option(
    "--max-remap",
    type=Kind("percent", _percent),
    help="Refuse if more of a service's sticky clients would move.",
)
