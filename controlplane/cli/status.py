"""The command that shows what runs, how it fares, what is wrong and what to type next."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from controlplane.cli import output
from controlplane.cli.chosen import chosen_argument, only
from controlplane.cli.teach import examples
from controlplane.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, Group, RenderableType
    from rich.text import Text

    from controlplane.cli.settings import Settings

__all__ = ["status"]

_WATCH_S: Final = 1.0


@click.command(
    epilog=examples(
        "lb-control status",
        "lb-control status web --watch",
        "lb-control status 'web-*'",
        "lb-control status --json | jq .converged",
    )
)
@chosen_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
@click.pass_obj
def status(settings: Settings, chosen: tuple[str, ...], *, as_json: bool, watch: bool) -> None:
    """Show what is wrong and what to type next, then data planes, services, sources and overrides.

    What is troubled comes first. A state with a star is an operator's word. With SERVICE, a name or a pattern, only
    services like it are shown.

    Exit 0 whether or not all is well: `converged` in the JSON says whether all agree. Exit 1 if nobody
    answers, or no service is like that.
    """
    if not watch:
        if as_json:
            output.print_json(only(settings.gateway().status(), chosen))
        else:
            output.render(_look(settings, chosen, output.console().width))
        return
    try:
        if as_json:
            while True:
                output.print_json(only(settings.gateway().status(), chosen))
                time.sleep(_WATCH_S)
        _watch(settings, chosen)
    except KeyboardInterrupt:
        return


def _look(settings: Settings, chosen: Sequence[str], width: int) -> Group:
    from controlplane.cli.statusview import view  # noqa: PLC0415 - 50 ms that only a table is worth
    from controlplane.direct import Direct  # noqa: PLC0415 - the same

    gateway = settings.gateway()
    return view(
        only(gateway.status(), chosen),
        width,
        datetime.now(UTC),
        direct=isinstance(gateway, Direct),
        part=bool(chosen),
    )


def _watch(settings: Settings, chosen: Sequence[str]) -> None:
    from rich.text import Text  # noqa: PLC0415 - only what a terminal view needs

    from controlplane.cli.screen import Screen, possible  # noqa: PLC0415 - the same

    console = output.console()
    if not possible(console):
        while True:
            output.render(_tried(settings, chosen, console.width))
            time.sleep(_WATCH_S)
    with Screen(console) as screen:
        while True:
            width, height = screen.size
            lines = _lines(console, _tried(settings, chosen, width))
            if len(lines) > height:
                more = f"{len(lines) - height + 1} more lines: make the window taller, or use top   q: quit"
                lines = [*lines[: height - 1], Text(more, style="dim")]
            screen.show(lines)
            keys = screen.wait(_WATCH_S)
            if keys is None or b"q" in keys:
                return


def _tried(settings: Settings, chosen: Sequence[str], width: int) -> RenderableType:
    from rich.text import Text  # noqa: PLC0415 - only what a terminal view needs

    try:
        return _look(settings, chosen, width)
    except ControlError as error:  # it may come back: a view that ends at a restart is of no use
        return Text(output.plain(error), style="bold red")


def _lines(console: Console, shown: RenderableType) -> list[Text]:
    from rich.text import Text  # noqa: PLC0415 - only what a terminal view needs

    with console.capture() as captured:
        console.print(shown)
    return [Text.from_ansi(line) for line in captured.get().splitlines()]
