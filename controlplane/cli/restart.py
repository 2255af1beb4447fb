"""The command that replaces workers one at a time."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from controlplane.cli import output
from controlplane.cli.kinds import DURATION
from controlplane.cli.teach import examples

if TYPE_CHECKING:
    from controlplane.cli.settings import Settings
    from controlplane.dataplanes.blocking_client import BlockingClient

__all__ = ["restart"]


@click.command(
    epilog=examples(
        "lb-control restart",
        "lb-control --dataplane /run/lb/dataplane-main.sock restart --timeout 5m",
    )
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
    from controlplane.dataplanes import requests  # noqa: PLC0415 - loaded by the commands that need it
    from controlplane.errors import DataPlaneError  # noqa: PLC0415 - the same

    try:
        client.ask(requests.post("/v1/restart", {}), timeout_s=timeout_s)
    except DataPlaneError as error:
        return str(error)
    return None
