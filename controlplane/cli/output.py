"""How results look: JSON for scripts, tables for people; and the examples that a command's help ends with."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from controlplane.errors import ControlError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_SIGNS: Final = {"add": "+", "remove": "-", "change": "~"}
_SHORT_HASH: Final = 12
_LATER: Final = ("unreachable", "late")
"""Results after which a change can still happen: when the daemon pushes it again, and for the last one by itself."""
_PIPE_COLUMNS: Final = 80


def examples(*lines: str) -> str:
    """Make a command's epilog of command lines that can be copied, each of at most 76 columns."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def command(*lines: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command whose help ends with these examples."""
    return click.command(epilog=examples(*lines))


def print_json(value: Any) -> None:
    """Print a value for a script."""
    click.echo(json.dumps(value, indent=2))


@contextlib.contextmanager
def errors(*, as_json: bool) -> Iterator[None]:
    """Print what goes wrong inside as JSON too, if a script is reading."""
    try:
        yield
    except ControlError as error:
        if as_json:
            details = list(getattr(error, "problems", ()))
            print_json({"code": error.code, "message": str(error), "details": details})
        raise


def plain(text: object) -> str:
    """Make text from elsewhere safe to print: a control character could rewrite the terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(text))


def counted(count: int, word: str) -> str:
    """Write `1 service`, `2 services`."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def warn(messages: Iterable[str]) -> None:
    """Say something on stderr that changes no exit code."""
    for message in messages:
        click.echo(f"warning: {plain(message)}", err=True)


def console() -> Console:
    """Return where tables are printed: as wide as the terminal, or as a page when it is none."""
    from rich.console import Console  # noqa: PLC0415 - 50 ms that only a table is worth

    made = Console(highlight=False, markup=False)
    return made if made.is_terminal else Console(highlight=False, markup=False, width=_PIPE_COLUMNS)


def render(renderable: RenderableType) -> None:
    """Print a table; into a pipe without the blanks that fill up its lines."""
    made = console()
    # Not cropped: what does not fit is there to be copied, and a terminal breaks it by itself.
    if made.is_terminal:
        made.print(renderable, crop=False)
        return
    with made.capture() as captured:
        made.print(renderable, crop=False)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def table(
    headers: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Sequence[str] = (),
    styles: Mapping[str, Mapping[str, str]] | None = None,
) -> RenderableType:
    """Make a table; `right` are the titles of columns of numbers, `styles` what texts look like, by title."""
    from rich.table import Table  # noqa: PLC0415 - as in `console`
    from rich.text import Text  # noqa: PLC0415 - the same

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    looks = styles or {}
    for title in headers:
        made.add_column(title, justify="right" if title in right else "left", overflow="fold")
    for row in rows:
        texts = ["\n".join(map(plain, str(cell).split("\n"))) for cell in row]
        made.add_row(
            *(
                Text(text, style=looks.get(title, {}).get(text, ""))
                for title, text in zip(headers, texts, strict=True)
            )
        )
    return made


def when(moment: str | None) -> str:
    """Shorten an RFC 3339 time in UTC for people: `2026-01-01 12:00:00`."""
    return (moment or "")[:19].replace("T", " ")


def change_line(change: Mapping[str, Any]) -> str:
    """Write a change on one line: `~ backend web/web-2  weight: 1 -> 2`."""
    what = {
        "backend": f"{change['service']}/{change.get('id')}",
        "listener": f"{change['service']} {change.get('address')}",
    }.get(change["kind"], change["service"])
    fields = ", ".join(
        f"{name}: {_value(each['from'])} -> {_value(each['to'])}"
        for name, each in change.get("fields", {}).items()
    )
    return plain(f"{_SIGNS[change['action']]} {change['kind']} {what}" + (f"  {fields}" if fields else ""))


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def show_plan(report: Mapping[str, Any]) -> None:
    """Print changes and impact for people."""
    changes, impact = report["changes"], report["impact"]
    click.echo("\n".join(map(change_line, changes)) if changes else "no changes")
    lines = [
        *(f"  {each['action']} {each['address']} ({each['service']})" for each in impact["listeners"]),
        *(_hit("drain", "connection", each) for each in impact["drain"]),
        *(_hit("close", "pooled connection", each) for each in impact["pool"]),
        *(f"  move {share} of the sticky clients of {name}" for name, share in impact["remap"].items()),
        *map(_certificate, impact.get("certificates", ())),
        *(
            f"  {each['name']}: its clients go to {each['to'] or 'nobody'}, not to {each['from'] or 'nobody'} any more"
            for each in impact.get("names", ())
        ),
    ]
    if lines:
        click.echo(plain("impact:") + "\n" + "\n".join(map(plain, lines)))


def _certificate(row: Mapping[str, Any]) -> str:
    shown = "show" if row["action"] == "add" else "show no more"
    who = "backends" if row["place"] == "backend_tls" else "clients"
    names = ", ".join(row["names"]) or "no name"
    return f"  {shown} the {who} of {row['service']}: certificate for {names}, until {row['ends']} ({row['cert']})"


def _hit(verb: str, what: str, row: Mapping[str, Any]) -> str:
    return f"  {verb} {counted(row['connections'], what)} of {row['service']}/{row['id']}"


def show_failures(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Print which data planes did not take it, why not, and what they run; return whether there are any."""
    failed = [row for row in rows if row["result"] != "ok"]
    for row in failed:
        said = f"{row['name']}: {row['error']}"
        if row["generation"] is not None:
            said += f"; it runs generation {row['generation']} ({(row['hash'] or '-')[:_SHORT_HASH]})"
        click.echo(plain(said), err=True)
    return bool(failed)


def show_later(report: Mapping[str, Any], back: str | None) -> None:
    """Say of a change what will still happen, where it looks as if it had failed, and the command that takes it `back`."""
    kept = report.get("kept")
    if kept is None:  # without a daemon an apply sends nothing to whom it has not heard
        return
    names = [row["name"] for row in report["dataplanes"] if row["result"] in _LATER[not kept :]]
    if not names:
        return
    answers = f"{', '.join(names)} {'answers' if len(names) == 1 else 'answer'} again"
    undo = f"; to take it back: {back}" if back else ""
    said = (
        f"the daemon keeps it, and pushes it when {answers}"
        if kept
        else f"it may still happen when {answers}"
    )
    click.echo(plain(said + undo), err=True)
