"""Commands about the past: history, rollback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from controlplane.cli import output
from controlplane.cli.completion import generations
from controlplane.cli.files import finish
from controlplane.cli.kinds import as_json_option, max_remap_option, timeout_option
from controlplane.cli.output import command
from controlplane.operations.options import ApplyOptions

if TYPE_CHECKING:
    from controlplane.cli.settings import Settings

__all__ = ["history", "rollback"]

_SHOWN_CHANGES: Final = 5


@command(
    "lb-control history --limit 5",
    "lb-control history --json",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, the oldest generation first.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the newest so many.")
@click.pass_obj
def history(settings: Settings, limit: int | None, *, as_json: bool) -> None:
    """List every applied generation: when, by whom, what changed."""
    report = settings.gateway().history()  # the past is there without any data plane
    entries: list[dict[str, Any]] = report["history"][-limit:] if limit else report["history"]
    output.warn(report.get("warnings", ()))
    if as_json:
        output.print_json(entries)
    elif not entries and not report.get("warnings"):
        click.echo("nothing was applied yet")
    else:
        for each in entries:
            click.echo("\n".join(_lines(each)))


def _lines(entry: dict[str, Any]) -> Iterator[str]:
    yield output.plain(
        f"{entry['generation']}  {output.when(entry['when'])}  {entry['origin']}  {entry['by']}"
    )
    shown = entry["changes"][:_SHOWN_CHANGES]
    yield from (f"    {output.change_line(change)}" for change in shown)
    if more := len(entry["changes"]) - len(shown) + entry["more"]:
        yield f"    and {more} more"


@command(
    "lb-control rollback                # to the content before this one",
    "lb-control rollback 41             # history names the generations",
    "lb-control rollback 41 --max-remap 10%",
)
@click.argument("generation", type=click.IntRange(min=1), required=False, shell_complete=generations)
@timeout_option
@max_remap_option
@click.option("--force", is_flag=True, help="Overwrite a concurrent change.")
@as_json_option
@click.pass_obj
def rollback(
    settings: Settings,
    generation: int | None,
    timeout: float,
    max_remap: float | None,
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Return to the content of GENERATION, or to the previous content, as a new generation.

    Exit 0: all data planes run it; 1: there is no such generation, or a data plane did not take it.
    """
    with output.errors(as_json=as_json):
        report = settings.gateway().rollback(generation, ApplyOptions(timeout, max_remap, force))
    if not as_json:
        click.echo(f"back to the content of generation {report['restored']}")
    finish(report, as_json=as_json)
