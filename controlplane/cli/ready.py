"""The command that tells keepalived, ExaBGP or Kubernetes whether this node may receive traffic."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from controlplane.cli import output
from controlplane.cli.kinds import DURATION
from controlplane.cli.teach import examples

if TYPE_CHECKING:
    from controlplane.cli.settings import Settings

__all__ = ["ready"]

_TIMEOUT: Final = "2s"


@click.command(
    epilog=examples(
        "lb-control ready",
        "lb-control ready --quiet --timeout 1s     # in keepalived's vrrp_script",
    )
)
@click.option("--timeout", type=DURATION, default=_TIMEOUT, show_default=True, help="For the answers.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing; only the exit code.")
@click.pass_obj
def ready(settings: Settings, timeout: float, *, quiet: bool) -> None:
    """Exit 0 if every data plane accepts on every listener of its snapshot; 1 if one does not.

    The daemon is not asked: traffic does not depend on it.
    """
    from controlplane.dataplanes import requests  # noqa: PLC0415 - loaded by the commands that need it
    from controlplane.dataplanes.blocking_client import ask_all  # noqa: PLC0415 - the same

    outcomes = ask_all(settings.clients(), requests.get("/readyz"), timeout_s=timeout)
    for each in outcomes:
        if not quiet:
            said = "ready" if each.error is None else f"not ready: {each.error}"
            click.echo(output.plain(f"{each.endpoint.name}: {said}"), err=each.error is not None)
    if any(each.error is not None for each in outcomes):
        sys.exit(1)
