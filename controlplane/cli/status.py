"""Commands that show what runs: status, explain, ready; and the one that replaces what runs it, restart."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

import click

from controlplane.cli import output
from controlplane.cli.completion import services
from controlplane.cli.output import command
from controlplane.cli.settings import DURATION, Settings, as_json_option
from controlplane.core.readiness import Reason
from controlplane.core.report import answered
from controlplane.dataplanes import requests
from controlplane.dataplanes.blocking_client import LOOK_S, Outcome, ask_all
from controlplane.errors import ControlError, UnknownError
from controlplane.operations.readiness import asked as asked_ready

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType
    from rich.text import Text

_WATCH_S: Final = 1.0
_NAMED: Final = 8
"""Services that a message names; of more it tells how many."""

chosen_argument = click.argument("chosen", metavar="[SERVICE]...", nargs=-1, shell_complete=services)


@command(
    "lb-control status",
    "lb-control status web --watch",
    "lb-control status 'web-*'",
    "lb-control status --json | jq .converged",
)
@chosen_argument
@as_json_option
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
@click.pass_obj
def status(settings: Settings, chosen: tuple[str, ...], *, as_json: bool, watch: bool) -> None:
    """Show what is wrong and what to type next, then data planes, services, sources and overrides.

    What is troubled comes first. A state with a star is an operator's word. With SERVICE, a name or a pattern, only
    services like it are shown.

    Exit 0 whether or not all is well: `converged` in the JSON says whether all agree. Exit 1 if neither the
    daemon nor any data plane answers, or no service is like that.
    """
    if not watch:
        report, direct = asked(settings, chosen)
        if as_json:
            output.print_json(report)
        else:
            output.render(_laid_out(report, chosen, output.console().width, direct=direct))
        if direct and not answered(report):
            sys.exit(1)
        return
    try:
        if as_json:
            while True:
                output.print_json(asked(settings, chosen)[0])
                time.sleep(_WATCH_S)
        _watch(settings, chosen)
    except KeyboardInterrupt:
        return


def asked(settings: Settings, chosen: Sequence[str]) -> tuple[dict[str, Any], bool]:
    """Return the status of what was chosen, and whether the data planes were asked, for want of a daemon."""
    gateway = settings.gateway()
    return only(gateway.status(), chosen), gateway.direct


def only(report: dict[str, Any], chosen: Sequence[str]) -> dict[str, Any]:
    """Leave the services and overrides that were not asked for out of what `status --json` prints.

    `chosen` are names, or patterns such as `web-*`; empty: everything is asked for. UnknownError if nothing is like one.
    """
    unheard = not report["services"] and any(each["error"] for each in report["dataplanes"])
    if not chosen or unheard:  # whoever does not answer, and why, is what there is to see
        return report
    names: set[str] = set()
    for each in chosen:
        matching = {name for name in report["services"] if fnmatchcase(name, each)}
        if not matching:
            there = sorted(report["services"])
            more = f" and {len(there) - _NAMED} more" if len(there) > _NAMED else ""
            said = f"there are: {', '.join(there[:_NAMED])}{more}" if there else "there are none"
            raise UnknownError(f"no service matches {each!r}; {said}")
        names |= matching
    return {
        **report,
        "services": {name: service for name, service in report["services"].items() if name in names},
        "overrides": [each for each in report["overrides"] if each["service"] in names],
    }


def _laid_out(
    report: dict[str, Any], chosen: Sequence[str], width: int, *, direct: bool, narrow: bool = False
) -> Group:
    from controlplane.cli.statusview import view  # noqa: PLC0415 - 50 ms that only a table is worth

    return view(report, width, datetime.now(UTC), direct=direct, part=bool(chosen), narrow=narrow)


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
        report, direct = asked(settings, chosen)
    except ControlError as error:  # it may come back: a view that ends at a restart is of no use
        return Text(output.plain(error), style="bold red")
    return _laid_out(report, chosen, width, direct=direct, narrow=True)


def _lines(console: Console, shown: RenderableType) -> list[Text]:
    from rich.text import Text  # noqa: PLC0415 - only what a terminal view needs

    with console.capture() as captured:
        console.print(shown)
    return [Text.from_ansi(line) for line in captured.get().splitlines()]


# --- commands that ask the data planes themselves, whether a daemon runs or not


@command(
    "lb-control explain web --client 192.0.2.7",
    "lb-control explain web --client 2001:db8::7 --json",
    "lb-control explain --sni www.example.com --client 192.0.2.7",
)
@click.argument("service", required=False, shell_complete=services)
@click.option("--client", required=True, metavar="IP", help="The client's address.")
@click.option("--sni", metavar="NAME", help="The name that it asks for; SERVICE may be left out then.")
@click.option("--alpn", multiple=True, metavar="PROTOCOL", help="A protocol that it offers; may be repeated.")
@as_json_option
@click.pass_obj
def explain(
    settings: Settings,
    service: str | None,
    client: str,
    sni: str | None,
    alpn: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    """Tell which backends of SERVICE a client would get, in order, and why not the others.

    With --sni or --alpn: which service takes it where services share a listener, and which backends that has for it.
    The first data plane that answers is asked; sticky services are the same on all.
    """
    if service is None and sni is None and not alpn:
        raise click.UsageError("name a service, or what the client asks for with --sni")
    try:
        client = str(ip_address(client))
    except ValueError as error:
        raise click.UsageError(f"--client: {error}") from error
    asked = {"service": service, "client": client, "sni": sni, "alpn": alpn or None}
    question = requests.get(
        "/v1/explain", **{key: value for key, value in asked.items() if value is not None}
    )
    outcomes = ask_all(settings.clients(), question, timeout_s=LOOK_S)
    found = next((each.answer for each in outcomes if each.answer is not None), None)
    if found is None:
        for each in outcomes:
            click.echo(output.plain(f"{each.endpoint.name}: {each.error}"), err=True)
        raise click.exceptions.Exit(1)
    if as_json:
        output.print_json(found)
        return
    for one in found.get("routes", ()):
        click.echo(output.plain(f"{one['address']}: {one['service'] or 'closed with no_route'}"))
    panic = "; panic: health is ignored" if found.get("panic") else ""
    click.echo(output.plain(f"{found['service']} for {found['client']}{panic}:"))
    rows = [
        *((n, each["id"], each["address"], "") for n, each in enumerate(found["candidates"], 1)),
        *(("-", each["id"], "", f"skipped: {each['reason']}") for each in found["skipped"]),
    ]
    output.render(output.table(("order", "backend", "address", "why not"), rows, right=("order",)))


@command(
    "lb-control ready",
    "lb-control ready --quiet --timeout 1s",
    "lb-control ready --preferred     # 1 also while it is lowered",
)
@click.option("--timeout", type=DURATION, default="2s", show_default=True, help="For the answers.")
@click.option("--preferred", is_flag=True, help="Exit 1 also while `node drain` has lowered this node.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing; only the exit code.")
@click.pass_obj
def ready(settings: Settings, timeout: float, *, preferred: bool, quiet: bool) -> None:
    """Exit 0 if this node may receive traffic; 1 if not, with every reason.

    It may if every data plane accepts on every listener of its snapshot, and `node drain` has not withdrawn it. The
    daemon is not asked: traffic does not depend on it.
    """
    verdict = asked_ready(settings.clients, settings.node_record(), timeout)
    if not quiet:
        for name, words in verdict.planes.items():
            said = "ready" if words is None else f"not ready: {words}"
            click.echo(output.plain(f"{name}: {said}"), err=words is not None)
        for reason, words in verdict.why:
            if reason is not Reason.DATA_PLANE:
                click.echo(output.plain(f"not ready: {reason}: {words}"), err=True)
        if verdict.ready and not verdict.preferred:
            drain = verdict.drain
            click.echo(output.plain(f"{drain.phase}, by {drain.by} since {drain.since}"), err=preferred)
    if not (verdict.preferred if preferred else verdict.ready):
        sys.exit(1)


@command(
    "lb-control restart",
    "lb-control --dataplane /run/lb/dataplane-main.sock restart --timeout 5m",
)
@click.option("--timeout", type=DURATION, default="120s", show_default=True, help="For each data plane.")
@click.pass_obj
def restart(settings: Settings, timeout: float) -> None:
    """Replace the workers of every data plane, one at a time.

    Whoever connects meanwhile is served. Connections in place stay with the old workers until the drain timeout,
    which cuts those that are left.

    Exit 0: every worker is a new process; 1: one is not, and its data plane is named.
    """
    outcomes = (
        each
        for client in settings.clients()
        for each in ask_all((client,), requests.post("/v1/restart", {}), timeout_s=timeout)
    )
    _show_each(outcomes, "all workers were replaced")


def _show_each(outcomes: Iterable[Outcome], well: str) -> None:
    """Print how each data plane took it, as soon as that is known; exit 1 if one did not."""
    failed = False
    for each in outcomes:
        failed = failed or each.error is not None
        said = well if each.error is None else str(each.error)
        click.echo(output.plain(f"{each.endpoint.name}: {said}"), err=each.error is not None)
    if failed:
        sys.exit(1)
