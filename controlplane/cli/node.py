"""Commands about this node as a whole: show whether it is ready, take it out, bring it back."""

from __future__ import annotations

import os
import sys
import time

import click

from controlplane.cli import output
from controlplane.cli.output import examples
from controlplane.cli.settings import DURATION, Settings, as_json_option
from controlplane.core.drain import Drain, Phase
from controlplane.core.readiness import Readiness
from controlplane.dataplanes.blocking_client import BlockingClient
from controlplane.operations.node_drain import AGAIN, Draining, Node, Pace
from controlplane.operations.node_drain import enable as enable_node
from controlplane.operations.readiness import asked
from schemas.system.ownership import user_name

_ANSWER_S = 2.0


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "lb-control node",
        "lb-control node drain --wait && systemctl poweroff",
        "lb-control node enable",
    ),
)
@as_json_option
@click.pass_context
def node(ctx: click.Context, *, as_json: bool) -> None:
    """Show whether this node is ready, and who is taking it out; drain and enable change that.

    Exit 0 whatever it is: `ready` is for programs.
    """
    if ctx.invoked_subcommand is not None:
        return
    settings: Settings = ctx.obj
    verdict = asked(settings.clients, settings.node_record(), _ANSWER_S)
    if as_json:
        output.print_json(
            {
                "ready": verdict.ready,
                "preferred": verdict.preferred,
                "reason": verdict.reason,
                "drain": verdict.drain.report(),
            }
        )
        return
    click.echo(output.plain(_standing(verdict)))
    if verdict.drain.phase is not Phase.ENABLED:
        click.echo(output.plain(_recorded(verdict.drain)))
    for reason, words in verdict.why:
        click.echo(output.plain(f"{reason}: {words}"))


def _standing(verdict: Readiness) -> str:
    if not verdict.ready:
        return "not ready"
    return "ready" if verdict.preferred else "ready; other nodes are preferred"


def _recorded(drain: Drain) -> str:
    ending = drain.phase is not Phase.DRAINED
    on = "to go on: lb-control node drain --wait; " if ending else "it may be switched off; "
    return f"{drain.phase} by {drain.by} since {output.when(drain.since)}; {on}{AGAIN}"


@node.command(
    epilog=examples(
        "lb-control node drain --wait && systemctl poweroff",
        "lb-control node drain --wait --settle 30s --quiet 10s --timeout 1h",
    )
)
@click.option("--wait", is_flag=True, help="Go on until it is drained; without it, until it is withdrawn.")
@click.option(
    "--settle",
    type=DURATION,
    default="3s",
    show_default=True,
    help="Between lowered and withdrawn: for routers to choose other nodes.",
)
@click.option(
    "--quiet",
    type=DURATION,
    default="5s",
    show_default=True,
    help="Without a new client, before connections in place get their deadlines.",
)
@click.option("--timeout", type=DURATION, default="10m", show_default=True, help="For all of it.")
@click.pass_obj
def drain(settings: Settings, settle: float, quiet: float, timeout: float, *, wait: bool) -> None:
    """Take this node out: other nodes are preferred first, then it is not ready, then it drains.

    While it is lowered, it serves, with MED up and VRRP priority down. Withdrawn, it is not ready: routes and
    addresses leave it. When no new client has come for a while it is draining: connections in place have the drain
    timeout of their service. Drained, it may be switched off.

    It is written down, and outlives every process and the machine's power. Interrupted, or late, it stays where it
    is; the same command goes on. Exit 0: withdrawn, or with --wait drained; 1: late, or somebody enabled it.
    """
    draining = Draining(
        _node(settings),
        settings.node_record(),
        user_name(os.getuid()),
        Pace(settle, quiet, timeout),
        tell=lambda text: click.echo(output.plain(text)),
        clock=time.monotonic,
        sleep=time.sleep,
    )
    now = draining.run(wait=wait)
    if now.phase is Phase.DRAINED:
        click.echo("drained: this node may be switched off")
        click.echo(AGAIN)
    else:
        click.echo(output.plain(f"to go on: lb-control node drain --wait; {AGAIN}"))


@node.command(epilog=examples("lb-control node enable"))
@click.pass_obj
def enable(settings: Settings) -> None:
    """Bring this node back, from whatever phase `drain` has led it to.

    Connections in place lose the deadlines that the drain gave them; what operators said of backends was not
    touched. Exit 0: done; 1: a data plane does not answer, and is named.
    """
    now, warnings = enable_node(_node(settings), settings.node_record(), user_name(os.getuid()))
    click.echo(
        output.plain(f"{now.phase}: this node takes clients again as soon as its data planes are ready")
    )
    if warnings:
        for each in warnings:
            click.echo(output.plain(each), err=True)
        sys.exit(1)


def _node(settings: Settings) -> Node:
    return Node(settings.clients, lambda: tuple(map(BlockingClient, settings.draining())))
