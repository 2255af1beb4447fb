"""Commands that ask the data planes themselves, whether a daemon runs or not: explain, ready, restart."""

from __future__ import annotations

import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING

import click

from controlplane.cli import output
from controlplane.cli.completion import services
from controlplane.cli.kinds import DURATION, as_json_option
from controlplane.cli.output import command
from controlplane.dataplanes import requests
from controlplane.dataplanes.blocking_client import LOOK_S, ask_all
from controlplane.errors import DataPlaneError

if TYPE_CHECKING:
    from controlplane.cli.settings import Settings
    from controlplane.dataplanes.blocking_client import BlockingClient

__all__ = ["explain", "ready", "restart"]


@command(
    "lb-control explain web --client 192.0.2.7",
    "lb-control explain web --client 2001:db8::7 --json",
)
@click.argument("service", shell_complete=services)
@click.option("--client", required=True, metavar="IP", help="The client's address.")
@as_json_option
@click.pass_obj
def explain(settings: Settings, service: str, client: str, *, as_json: bool) -> None:
    """Tell which backends of SERVICE a client would get, in order, and why not the others.

    The first data plane that answers is asked; sticky services are the same on all.
    """
    try:
        client = str(ip_address(client))
    except ValueError as error:
        raise click.UsageError(f"--client: {error}") from error
    question = requests.get("/v1/explain", service=service, client=client)
    outcomes = ask_all(settings.clients(), question, timeout_s=LOOK_S)
    found = next((each.answer for each in outcomes if each.answer is not None), None)
    if found is None:
        for each in outcomes:
            click.echo(output.plain(f"{each.endpoint.name}: {each.error}"), err=True)
        raise click.exceptions.Exit(1)
    if as_json:
        output.print_json(found)
        return
    panic = "; panic: health is ignored" if found.get("panic") else ""
    click.echo(output.plain(f"{found['service']} for {found['client']}{panic}:"))
    rows = [
        *((n, each["id"], each["address"], "") for n, each in enumerate(found["candidates"], 1)),
        *(("-", each["id"], "", f"skipped: {each['reason']}") for each in found["skipped"]),
    ]
    output.render(output.table(("order", "backend", "address", "why not"), rows, right=("order",)))


@command(
    "lb-control ready",
    "lb-control ready --quiet --timeout 1s     # in keepalived's vrrp_script",
)
@click.option("--timeout", type=DURATION, default="2s", show_default=True, help="For the answers.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing; only the exit code.")
@click.pass_obj
def ready(settings: Settings, timeout: float, *, quiet: bool) -> None:
    """Exit 0 if every data plane accepts on every listener of its snapshot; 1 if one does not.

    The daemon is not asked: traffic does not depend on it.
    """
    outcomes = ask_all(settings.clients(), requests.get("/readyz"), timeout_s=timeout)
    for each in outcomes:
        if not quiet:
            said = "ready" if each.error is None else f"not ready: {each.error}"
            click.echo(output.plain(f"{each.endpoint.name}: {said}"), err=each.error is not None)
    if any(each.error is not None for each in outcomes):
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
    failed = False
    for client in settings.clients():
        problem = _restart(client, timeout)
        failed = failed or problem is not None
        said = problem or "all workers were replaced"
        click.echo(output.plain(f"{client.endpoint.name}: {said}"), err=problem is not None)
    if failed:
        sys.exit(1)


def _restart(client: BlockingClient, timeout_s: float) -> str | None:
    """Restart one data plane's workers; return why that failed."""
    try:
        client.ask(requests.post("/v1/restart", {}), timeout_s=timeout_s)
    except DataPlaneError as error:
        return str(error)
    return None
