"""Kinds of option values: durations and percentages as in lb.yaml."""

from __future__ import annotations

from typing import Any

import click

__all__ = ["DURATION", "PERCENT"]


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


DURATION = _Duration()
"""Seconds, from `30s`."""
PERCENT = _Percent()
"""A fraction, from `10%`."""
