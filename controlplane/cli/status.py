"""The command that shows what runs, how it fares, and whether all agree."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from controlplane.cli import output
from controlplane.cli.sources import sources_table

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

    from controlplane.cli.settings import Settings

__all__ = ["status", "view"]

_WATCH_S: Final = 1.0
_STALE_S: Final = 3.0
_SHORT_HASH: Final = 12


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
@click.pass_obj
def status(settings: Settings, *, as_json: bool, watch: bool) -> None:
    """Show services, backends, data planes, sources and overrides.

    Exit 0 whether or not all agree: `converged` in the JSON says that.
    """
    if not watch:
        report = settings.gateway().status()
        if as_json:
            output.print_json(report)
        else:
            output.render(view(report))
        return
    try:
        if as_json:
            while True:
                output.print_json(settings.gateway().status())
                time.sleep(_WATCH_S)
        _watch(settings)
    except KeyboardInterrupt:
        return


def _watch(settings: Settings) -> None:
    from rich.live import Live  # noqa: PLC0415 - only what a terminal view needs
    from rich.text import Text  # noqa: PLC0415 - the same

    from controlplane.errors import ControlError  # noqa: PLC0415 - the same

    with Live(console=output.console(), auto_refresh=False) as live:
        while True:
            try:
                shown: RenderableType = view(settings.gateway().status())
            except ControlError as error:  # it may come back: a view that ends at a restart is of no use
                shown = Text(output.plain(error))
            live.update(shown, refresh=True)
            time.sleep(_WATCH_S)


def view(report: dict[str, Any]) -> Group:
    """Lay a status out for 80 columns."""
    from rich.console import Group  # noqa: PLC0415 - only what a terminal view needs
    from rich.text import Text  # noqa: PLC0415 - the same

    parts: list[RenderableType] = [Text(line) for line in _head(report)]
    parts.append(_dataplanes(report))
    for name, service in report["services"].items():
        parts += [Text(line) for line in _service_head(name, service)]
        parts.append(_backends(service))
    if report["sources"]:
        parts.append(sources_table(report["sources"]))
    if report["overrides"]:
        rows = [
            (
                f"{each['service']}/{each['id']}",
                f"{each['field']} {each['value']}",
                each["by"] or "?",
                output.when(each["since"]),
            )
            for each in report["overrides"]
        ]
        parts.append(output.table(("override", "says", "by", "since"), rows))
    return Group(*parts)


def _head(report: dict[str, Any]) -> Iterator[str]:
    agreement = "all data planes run it" if report["converged"] else "NOT CONVERGED"
    yield f"generation {report['generation']}  {report['hash'][:_SHORT_HASH]}  {agreement}"
    if error := report["config_error"]:
        yield output.plain(
            f"CONFIG ERROR since {output.when(error['since'])}, what ran before still runs: {error['message']}"
        )


def _dataplanes(report: dict[str, Any]) -> RenderableType:
    rows = []
    for each in report["dataplanes"]:
        age = each["age_s"]
        seen = "now" if age < _STALE_S else f"{age:.0f} s ago"
        state = each["error"] or ("ok" if each["reachable"] else "unreachable")
        known = each["generation"] is not None
        rows.append(
            (
                each["name"],
                each["pid"] or "",
                len(each["workers"]) or "",
                each["generation"] if known else "?",
                (each["hash"] or "")[:8],
                seen if known else "never",
                state,
            )
        )
    titles = ("data plane", "pid", "workers", "gen", "hash", "seen", "state")
    return output.table(titles, rows, right=("pid", "workers", "gen"))


def _service_head(name: str, service: dict[str, Any]) -> Iterator[str]:
    listeners = ", ".join(
        each["address"] + ("" if each["state"] == "accepting" else f" ({each['state']})")
        for each in service["listeners"]
    )
    yield output.plain(f"{name}  {service['mode']}  {listeners}  {service['active']} active")
    if service.get("panic"):
        yield "  PANIC: too few usable backends; their health is ignored"


def _backends(service: dict[str, Any]) -> RenderableType:
    rows = [
        (
            each["id"] if each["id"] == each["address"] else f"{each['id']}\n{each['address']}",
            each["weight"],
            "removed" if each.get("removed") else each["state"] + ("*" if each.get("overridden") else ""),
            each["health"]["state"],
            each["health"]["cause"],
            each["active"],
            each["pooled"],
        )
        for each in service["backends"]
    ]
    titles = ("backend", "weight", "state", "health", "cause", "active", "pooled")
    return output.table(titles, rows, right=("weight", "active", "pooled"))
