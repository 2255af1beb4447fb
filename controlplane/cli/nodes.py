"""The command that shows the nodes of a cluster: nodes."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from controlplane.cli import output
from controlplane.cli.output import command
from controlplane.cli.settings import Kind, Settings, as_json_option, key_of
from controlplane.errors import PlaceError

if TYPE_CHECKING:
    from controlplane.discovery.consul.key import KeySource

_ANSWER_S: Final = 10.0


@command(
    "lb-control nodes",
    "lb-control nodes --json | jq .nodes",
    "lb-control nodes --of consul-kv:lb/edge      # without a daemon",
)
@click.option(
    "--of",
    "of",
    metavar="consul-kv:PATH",
    type=Kind("key", key_of),
    help="Ask Consul itself for the nodes of the cluster that the lb.yaml in this key names.",
)
@as_json_option
@click.pass_obj
def nodes(settings: Settings, *, of: KeySource | None, as_json: bool) -> None:
    """Show who is in the cluster: who is gone, behind or not ready, and who disagrees in what.

    The daemon of any node tells it, also while Consul is away: then it is the last picture, with its age. With --of
    Consul is asked, at CONSUL_HTTP_ADDR and with its token.

    Exit 0 whether or not all is well: `converged` in the JSON says whether all live nodes run the same. Exit 1 if
    nothing is known: there is no cluster, or neither the daemon nor Consul answers.
    """
    with output.errors(as_json=as_json):
        report = _asked(settings, of)
    if as_json:
        output.print_json(report)
    else:
        from controlplane.cli.nodesview import view  # noqa: PLC0415 - 50 ms that only a table is worth

        output.render(view(report, datetime.now(UTC)))
    if not report["known"]:
        sys.exit(1)


def _asked(settings: Settings, of: KeySource | None) -> dict[str, Any]:
    """Return what the daemon answers, or Consul."""
    if of is None:
        daemon = settings.daemon()
        if daemon is None:
            raise PlaceError(
                "no daemon runs here that knows the nodes; to ask Consul itself: "
                "lb-control nodes --of consul-kv:PATH, with the key that the nodes follow"
            )
        from controlplane.operations.gateway import Remote  # noqa: PLC0415 - commands load what they use

        return Remote(daemon).nodes()
    from controlplane.cluster.reading import read_cluster  # noqa: PLC0415 - aiohttp takes 200 ms

    return asyncio.run(read_cluster(of.settings, of.path, _ANSWER_S))
