"""Kinds of option values: durations and percentages as in lb.yaml, and where an lb.yaml can live."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from controlplane.desired.location import FileHome, KeyHome

__all__ = ["DURATION", "HOME", "HOST_NAME", "KEY", "PERCENT"]


class _Duration(click.ParamType[float]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from schemas.fields import parse_duration  # noqa: PLC0415 - pydantic, only when such an option is used

        if isinstance(value, float):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Percent(click.ParamType[float]):
    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from schemas.fields import parse_percent  # noqa: PLC0415 - pydantic, only when such an option is used

        try:
            return parse_percent(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Home(click.ParamType["FileHome | KeyHome"]):
    name = "file or key"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> FileHome | KeyHome:
        from controlplane.desired.location import FileHome  # noqa: PLC0415 - only the command that runs needs it
        from controlplane.discovery.consul.settings import PREFIX  # noqa: PLC0415 - the same

        if value.startswith(PREFIX):
            return KEY.convert(value, param, ctx)
        if value == "-" or _is_pipe(value):
            what = "standard input" if value == "-" else f"{value} is a pipe, and"
            self.fail(
                f"{what} cannot be watched; name a file, or apply it: lb-control apply {value}", param, ctx
            )
        return FileHome(Path(value))


def _is_pipe(path: str) -> bool:
    """Tell whether a pipe is there, as far as one may look: what cannot be looked at is tried again by the daemon."""
    try:
        return Path(path).is_fifo()
    except OSError:
        return False


class _Key(click.ParamType["KeyHome"]):
    name = "key"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> KeyHome:
        from controlplane.desired.location import KeyHome  # noqa: PLC0415 - only the command that runs needs it
        from controlplane.discovery.consul.settings import (  # noqa: PLC0415 - the same
            PREFIX,
            settings_from_environment,
        )

        if not value.startswith(PREFIX):
            self.fail(f"must be {PREFIX}PATH", param, ctx)
        settings = settings_from_environment(os.environ, base=Path())
        return KeyHome(value, value.removeprefix(PREFIX), settings)


class _HostName(click.ParamType[str]):
    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from schemas.http.hosts import host_name  # noqa: PLC0415 - only the command that runs needs it

        try:
            return host_name(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = _Duration()
"""Seconds, from `30s`."""
HOST_NAME = _HostName()
"""As it is compared: lower case, and without the root's dot."""
HOME = _Home()
"""A path, or `consul-kv:PATH`; the agent is the one that `CONSUL_HTTP_ADDR` and its like name."""
KEY = _Key()
"""Only `consul-kv:PATH`."""
PERCENT = _Percent()
"""A fraction, from `10%`."""
