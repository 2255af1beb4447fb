"""What `plan --to` and `apply --to` do: one change for all nodes that follow a key."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from controlplane.cli import output
from controlplane.cli.settings import Settings
from controlplane.cluster.canaries import Ending, take_back
from controlplane.cluster.checking import check_for_all
from controlplane.cluster.looking import InterruptedHere, Keys, Looker
from controlplane.cluster.planning import plan_everywhere
from controlplane.cluster.reading import read_nodes
from controlplane.cluster.rollout import Order, Report, Rollout
from controlplane.cluster.writing import write, write_and_wait
from controlplane.core.arrival import Arrival, Standing
from controlplane.core.nodes import Picture
from controlplane.core.plan import remaps_above
from controlplane.dataplanes.requests import Caller, here
from controlplane.desired.document import Given, Proposal, read_given
from controlplane.discovery.consul.client import connected
from controlplane.errors import HeldBackError
from schemas.reading.document import scan_document
from schemas.system.ownership import user_name

if TYPE_CHECKING:
    from controlplane.discovery.consul.client import ConsulClient
    from controlplane.discovery.consul.key import KeySource

T = TypeVar("T")
_CHANGES: Final = 3
_PLAN_S: Final = 15.0
"""For the daemons of all nodes, which ask their data planes."""
_STYLES: Final = {"result": {"worse": "red"}, "standing": {"runs": "green"}}


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a file is to be written for all nodes."""

    key: KeySource
    timeout_s: float
    force: bool
    as_json: bool
    wait: bool = False
    canary: int | tuple[str, ...] | None = None
    observe_s: float = 60.0
    min_connections: int = 0
    max_remap: float | None = None

    @property
    def keys(self) -> Keys:
        """The keys of it."""
        return Keys(self.key.path)

    @property
    def needs_nodes(self) -> str | None:
        """The option for whose sake the nodes have to be known; None: there is none."""
        given = {
            "--canary": self.canary is not None,
            "--wait": self.wait,
            "--max-remap": self.max_remap is not None,
        }
        return next((name for name, is_given in given.items() if is_given), None)


def plan_to(settings: Settings, file: Path, key: KeySource, *, as_json: bool, detailed: bool) -> None:
    """Show what a file would change on every live node, and exit accordingly."""
    with output.errors(as_json=as_json):
        given = read_given(file)
        cluster = _cluster_of(given, asyncio.run(check_for_all(key.settings, given)), "plan --to")
        report = _planned(settings, given, key, cluster)
    if as_json:
        output.print_json(report)
    else:
        if any(each["changes"] is not None for each in report["nodes"]):
            output.show_plan(report)
        _show_nodes_planned(report["nodes"])
    if not report["nodes"] or any(each["result"] != "ok" or each["unserved"] for each in report["nodes"]):
        sys.exit(1)
    if detailed and report["changes"]:
        sys.exit(_CHANGES)


def apply_to(settings: Settings, file: Path, wanted: Wanted) -> None:
    """Write a file to a key, in the way that is wanted, and exit accordingly."""
    with output.errors(as_json=wanted.as_json):
        given = read_given(file)
        proposal, needs = asyncio.run(check_for_all(wanted.key.settings, given)), wanted.needs_nodes
        cluster = "" if needs is None else _cluster_of(given, proposal, needs)
        if wanted.max_remap is not None:
            _refuse_moves(_planned(settings, given, wanted.key, cluster), wanted.max_remap)
        if wanted.canary is not None:
            _roll_out(given, cluster, wanted, wanted.canary)
        elif wanted.wait:
            _write_and_wait(given, cluster, wanted)
        else:
            _write(given, wanted)


def take_back_of(key: KeySource, *, as_json: bool) -> None:
    """End a canary that nobody attends to."""
    keys = Keys(key.path)
    with output.errors(as_json=as_json):
        record = _asked(key, lambda client, _: take_back(client, keys, user_name(os.getuid())))
    if as_json:
        output.print_json({"key": keys.name, "canary": record.id, "how": Ending.TAKEN_BACK.value})
    else:
        click.echo(
            output.plain(
                f"{keys.name}: canary {record.short_id} of {record.by} is taken back on {', '.join(record.nodes)}"
            )
        )


# --- each way


def _write(given: Given, wanted: Wanted) -> None:
    changed = _asked(
        wanted.key,
        lambda client, _: write(client, wanted.keys, given.raw, wanted.timeout_s, force=wanted.force),
    )
    if wanted.as_json:
        output.print_json({"key": wanted.keys.name, "changed": changed})
    else:
        click.echo(f"{wanted.keys.name}: {'written' if changed else 'has this content already'}")


def _write_and_wait(given: Given, cluster: str, wanted: Wanted) -> None:
    async def work(client: ConsulClient, stop: asyncio.Event) -> tuple[bool, list[Arrival]]:
        looker = Looker(client, cluster, wanted.keys, _say, stop)
        done = await write_and_wait(looker, given.raw, wanted.timeout_s, force=wanted.force)
        return done.changed, done.nodes

    changed, nodes = _asked(wanted.key, work)
    if wanted.as_json:
        output.print_json(
            {"key": wanted.keys.name, "changed": changed, "nodes": [each.report() for each in nodes]}
        )
    _finish(nodes, cluster, as_json=wanted.as_json)


def _roll_out(given: Given, cluster: str, wanted: Wanted, nodes: int | tuple[str, ...]) -> None:
    order = Order(
        given.raw, nodes, wanted.observe_s, wanted.timeout_s, user_name(os.getuid()), wanted.min_connections
    )

    async def work(client: ConsulClient, stop: asyncio.Event) -> Report:
        return await Rollout(Looker(client, cluster, wanted.keys, _say, stop), order).run()

    report = _asked(wanted.key, work)
    rows = () if report.verdict is None else report.verdict.rows
    if wanted.as_json:
        record = report.record
        output.print_json(
            {
                "key": wanted.keys.name,
                "canary": None if record is None else {"id": record.id, "nodes": list(record.nodes)},
                "how": None if report.ending is None else report.ending.value,
                "why": report.why,
                "evidence": [each.report() for each in rows],
                "nodes": [each.report() for each in report.nodes],
            }
        )
    elif rows:
        table = [
            (
                each.service,
                each.metric,
                each.canary,
                each.others.shown,
                each.before.shown,
                "worse" if each.is_worse else "",
            )
            for each in rows
        ]
        titles = ("service", "compared", "canary", "others", "before", "result")
        output.render(output.table(titles, table, styles=_STYLES))
    if report.ending is None:
        if not wanted.as_json:
            click.echo(f"{wanted.keys.name}: has this content already")
        return
    if report.ending is not Ending.PROMOTED:
        click.echo(output.plain(f"{report.ending.value}: {report.why}"), err=True)
        _show_lacking(report.nodes)
        sys.exit(1)
    _finish(report.nodes, cluster, as_json=wanted.as_json)


def _finish(nodes: Sequence[Arrival], cluster: str, *, as_json: bool) -> None:
    """Say who has it and who has not, and exit accordingly."""
    runs = sum(each.standing is Standing.RUNS for each in nodes)
    if not nodes:
        click.echo(
            f"no node of {cluster} is there, or Consul does not say so; see lb-control nodes", err=True
        )
        sys.exit(1)
    if not as_json:
        click.echo(f"{runs} of {output.counted(len(nodes), 'node')} of {cluster} run it")
    if _show_lacking(nodes):
        sys.exit(1)


def _show_lacking(nodes: Sequence[Arrival]) -> bool:
    lacking = [each for each in nodes if each.standing is not Standing.RUNS]
    for each in lacking:
        click.echo(output.plain(f"{each.node}: {each.standing.value}: {each.why}"), err=True)
    return bool(lacking)


# --- plans


def _planned(settings: Settings, given: Given, key: KeySource, cluster: str) -> dict[str, Any]:
    """Ask the nodes for their plans."""

    async def work(client: ConsulClient, _stop: asyncio.Event) -> Picture:
        return await read_nodes(client, cluster)

    picture = _asked(key, work)
    document = scan_document(given.raw).value
    caller = Caller(token=settings.token(), tls=settings.files)
    return plan_everywhere(picture, document, caller, timeout_s=_PLAN_S)


def _refuse_moves(report: dict[str, Any], most: float) -> None:
    """Stop a change that would move too many sticky clients, or of which a node does not say so, with a HeldBackError."""
    silent = [f"{each['node']}: {each['error']}" for each in report["nodes"] if each["result"] != "ok"]
    if silent:
        raise HeldBackError(
            "nothing was changed: --max-remap cannot be kept, for not all nodes tell what would move\n"
            + "\n".join(silent)
        )
    if above := remaps_above(report["impact"], most):
        shares = ", ".join(f"{service}: {share}" for service, share in above.items())
        raise HeldBackError(
            f"nothing was changed: {shares} of the sticky clients of a node would move to another backend, "
            f"which is above --max-remap {most * 100:.4g}%"
        )


def _show_nodes_planned(nodes: Sequence[dict[str, Any]]) -> None:
    if not nodes:
        click.echo("no node is there: see lb-control nodes", err=True)
        return
    rows = [
        (
            each["node"],
            each["result"],
            "-" if each["changes"] is None else each["changes"],
            sum(row["connections"] for row in (each["impact"] or {}).get("drain", ())),
            each["error"] or ", ".join(f"{one['service']} is not served" for one in each["unserved"]),
        )
        for each in nodes
    ]
    output.render(
        output.table(("node", "result", "changes", "drains", "note"), rows, right=("changes", "drains"))
    )


# --- parts


def _say(message: str) -> None:
    click.echo(output.plain(message), err=True)


def _cluster_of(given: Given, proposal: Proposal, needs: str) -> str:
    """Return the cluster that a file belongs to; a usage error if it is none's."""
    cluster = proposal.desired.cluster
    if cluster is None:
        raise click.UsageError(
            f"{needs} needs to know the nodes, and {given.source} has no cluster: add cluster: {{name: NAME}}"
        )
    return cluster.name


def _asked(key: KeySource, work: Callable[[ConsulClient, asyncio.Event], Awaitable[T]]) -> T:
    """Do something with Consul; SIGINT and SIGTERM set the event, so that what was begun can be ended in good order."""

    async def main() -> T:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        async with connected(key.settings) as client:
            return await work(client, stop)

    try:
        return asyncio.run(main())
    except InterruptedHere:
        click.echo(f"interrupted on {here()}: what was written stays, and is not waited for", err=True)
        sys.exit(1)
