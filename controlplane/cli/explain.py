"""The command that explains a pick."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import click

from controlplane.cli import output
from controlplane.cli.completion import services
from controlplane.cli.teach import examples

if TYPE_CHECKING:
    from controlplane.cli.settings import Settings

__all__ = ["explain"]


@click.command(
    epilog=examples(
        "lb-control explain web --client 192.0.2.7",
        "lb-control explain web --client 2001:db8::7 --json",
    )
)
@click.argument("service", shell_complete=services)
@click.option("--client", required=True, metavar="IP", help="The client's address.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def explain(settings: Settings, service: str, client: str, *, as_json: bool) -> None:
    """Tell which backends of SERVICE a client would get, in order, and why not the others.

    The first data plane that answers is asked; sticky services are the same on all.
    """
    try:
        client = str(ip_address(client))
    except ValueError as error:
        raise click.UsageError(f"--client: {error}") from error
    from controlplane.dataplanes import requests  # noqa: PLC0415 - loaded by the commands that need it
    from controlplane.dataplanes.blocking_client import LOOK_S, ask_all  # noqa: PLC0415 - the same

    outcomes = ask_all(settings.clients(), requests.explain(service, client), timeout_s=LOOK_S)
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
