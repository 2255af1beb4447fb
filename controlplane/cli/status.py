"""The command that shows what runs, how it fares, what is wrong and what to type next."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from controlplane.cli import output
from controlplane.cli.teach import examples
from controlplane.errors import ControlError

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType
    from rich.text import Text

    from controlplane.cli.settings import Settings

__all__ = ["status"]

_WATCH_S: Final = 1.0


@click.command(
    epilog=examples(
        "lb-control status",
        "lb-control status --watch",
        "lb-control status --json | jq .converged",
    )
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
@click.pass_obj
def status(settings: Settings, *, as_json: bool, watch: bool) -> None:
    """Show what is wrong and what to type next, then data planes, services, sources and overrides.

    What is troubled comes first. A state with a star is an operator's word.

    Exit 0 whether or not all is well: `converged` in the JSON says whether all agree. Exit 1 if nobody
    answers.
    """
    if not watch:
        if as_json:
            output.print_json(settings.gateway().status())
        else:
            output.render(_look(settings, output.console().width))
        return
    try:
        if as_json:
            while True:
                output.print_json(settings.gateway().status())
                time.sleep(_WATCH_S)
        _watch(settings)
    except KeyboardInterrupt:
        return


def _look(settings: Settings, width: int) -> Group:
    from controlplane.cli.statusview import view  # noqa: PLC0415 - 50 ms that only a table is worth
    from controlplane.direct import Direct  # noqa: PLC0415 - the same

    gateway = settings.gateway()
    return view(gateway.status(), width, datetime.now(UTC), direct=isinstance(gateway, Direct))


def _watch(settings: Settings) -> None:
    from rich.text import Text  # noqa: PLC0415 - only what a terminal view needs

    from controlplane.cli.screen import Screen, possible  # noqa: PLC0415 - the same

    console = output.console()
    if not possible(console):
        while True:
            output.render(_tried(settings, console.width))
            time.sleep(_WATCH_S)
    with Screen(console) as screen:
        while True:
            width, height = screen.size
            lines = _lines(console, _tried(settings, width))
            if len(lines) > height:
                more = f"{len(lines) - height + 1} more lines: make the window taller, or use top   q: quit"
                lines = [*lines[: height - 1], Text(more, style="dim")]
            screen.show(lines)
            keys = screen.wait(_WATCH_S)
            if keys is None or b"q" in keys:
                return


def _tried(settings: Settings, width: int) -> RenderableType:
    from rich.text import Text  # noqa: PLC0415 - only what a terminal view needs

    try:
        return _look(settings, width)
    except ControlError as error:  # it may come back: a view that ends at a restart is of no use
        return Text(output.plain(error), style="bold red")


def _lines(console: Console, shown: RenderableType) -> list[Text]:
    from rich.text import Text  # noqa: PLC0415 - only what a terminal view needs

    with console.capture() as captured:
        console.print(shown)
    return [Text.from_ansi(line) for line in captured.get().splitlines()]
