"""Part of a status: that of the services that somebody named."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import click

from controlplane.cli.completion import services
from controlplane.errors import UnknownError

__all__ = ["chosen_argument", "only"]

_NAMED: Final = 8
"""Services that a message names; of more it tells how many."""

chosen_argument = click.argument("chosen", metavar="[SERVICE]...", nargs=-1, shell_complete=services)


def only(report: dict[str, Any], chosen: Sequence[str]) -> dict[str, Any]:
    """Leave out the services and overrides that were not asked for.

    Args:
        report: As `status --json` prints it.
        chosen: Names, or patterns such as `web-*`; empty: everything is asked for.

    Raises:
        UnknownError: There is no service of that name, or none that matches.
    """
    if not chosen:
        return report
    names: set[str] = set()
    for each in chosen:
        matching = {name for name in report["services"] if fnmatchcase(name, each)}
        if not matching:
            raise UnknownError(f"no service matches {each!r}; {_there_are(sorted(report['services']))}")
        names |= matching
    return {
        **report,
        "services": {name: service for name, service in report["services"].items() if name in names},
        "overrides": [each for each in report["overrides"] if each["service"] in names],
    }


def _there_are(names: Sequence[str]) -> str:
    if not names:
        return "there are none"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"there are: {', '.join(names[:_NAMED])}{more}"
