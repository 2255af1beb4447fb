"""Commands about an lb.yaml, a new one or an earlier one: validate, plan, apply, history, rollback."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from controlplane.cli import output
from controlplane.cli.canary_options import NODES, OBSERVE_S, check_together
from controlplane.cli.completion import generations
from controlplane.cli.output import command
from controlplane.cli.settings import (
    DURATION,
    Kind,
    Settings,
    as_json_option,
    key_of,
    max_remap_option,
    timeout_option,
)
from controlplane.desired.document import Given, Proposal, placed, read_given
from controlplane.errors import InputError
from controlplane.operations.options import ApplyOptions

if TYPE_CHECKING:
    from controlplane.discovery.consul.key import KeySource

_SHOWN_CHANGES: Final = 5
_CHANGES: Final = 3
"""`plan --detailed-exitcode`: there are changes."""


def _variable(text: str) -> tuple[str, str]:
    """Read `NODE_X=VALUE`."""
    from schemas.variables import is_name, is_value  # noqa: PLC0415 - pydantic, only when such an option is used

    name, _, value = text.partition("=")
    if not is_name(name) or not is_value(value):
        raise ValueError("must be a variable of a node and its value, such as NODE_IP=10.0.0.1")
    return name, value


_file = click.argument("file", type=click.Path(path_type=Path))


@command(
    "lb-control validate lb.yaml",
    "lb-control validate lb.yaml --json       # for a program that checks commits",
    "lb-control validate lb.yaml --node NODE_IP=10.0.0.1 --node NODE_NAME=lb1",
    "envsubst < lb.yaml.in | lb-control validate -",
)
@_file
@click.option(
    "--node",
    "given",
    metavar="NAME=VALUE",
    type=Kind("variable", _variable),
    multiple=True,
    help="The value of a variable such as NODE_IP on the node that this is for; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the problems as JSON.")
def validate(file: Path, given: tuple[tuple[str, str], ...], *, as_json: bool) -> None:
    """Check FILE, or standard input for -: every error at once, as FILE:LINE:COLUMN: path: message.

    Binds nothing and connects nowhere. A variable of the node that is neither given nor in the environment has a
    placeholder, which is said. Of files of TLS that are here it is said what is wrong with them, as a warning: the data plane
    reads them, perhaps elsewhere. Exit 0: valid; 2: not.
    """
    from schemas.variables import PLACEHOLDER, Known, Variables, from_environment  # noqa: PLC0415 - pydantic

    known = from_environment(os.environ) | {name: Known(value, "--node") for name, value in given}
    try:
        proposal = Proposal.of_file(file, lambda *_: Variables(known, placeholders=True))
    except InputError as error:
        if not as_json:
            raise
        output.print_json({"valid": False, "problems": list(error.problems), "variables": {}, "warnings": []})
        sys.exit(error.exit_code)
    from controlplane.desired.tls_files import file_warnings  # noqa: PLC0415 - ssl, which only this needs

    warnings = file_warnings(proposal.desired.services, time.time())
    if as_json:
        variables = {name: each._asdict() for name, each in proposal.variables.items()}
        output.print_json({"valid": True, "problems": [], "variables": variables, "warnings": warnings})
        return
    output.warn(warnings)
    click.echo(f"{file}: valid, {output.counted(len(proposal.desired.services), 'service')}")
    stand_ins = {name: each.value for name, each in proposal.variables.items() if each.source == PLACEHOLDER}
    if stand_ins:
        said = ", ".join(f"{name}={value}" for name, value in stand_ins.items())
        click.echo(f"{file}: with placeholders for what each node knows: {said}; set them with --node")


_key = click.option(
    "--to",
    "key",
    metavar="consul-kv:PATH",
    type=Kind("key", key_of),
    help="The key in Consul that the nodes of FILE's cluster follow.",
)


@command(
    "lb-control plan lb.yaml",
    "lb-control plan lb.yaml --detailed-exitcode  # 3: there are changes",
    "lb-control plan lb.yaml --json               # for a program that decides",
    "lb-control --token-file http.token plan lb.yaml --to consul-kv:lb/edge",
)
@_file
@_key
@as_json_option
@click.option("--detailed-exitcode", is_flag=True, help="Exit 3 if there are changes.")
@click.option(
    "--force", is_flag=True, help="As if the discovery guard held nothing: what apply --force would do."
)
@click.pass_obj
def plan(
    settings: Settings,
    file: Path,
    key: KeySource | None,
    *,
    as_json: bool,
    detailed_exitcode: bool,
    force: bool,
) -> None:
    """Show what FILE, or standard input for -, would change, and whom it would hit.

    The data planes themselves say so, from live counters; without one it is the difference to what was applied
    last. With --to each node of FILE's cluster is asked at its cluster.address, with the token of --token-file.
    Exit 0; 1: a data plane would refuse it, a node could not be asked, or nobody would serve a service; 2: FILE is invalid.
    """
    if key is not None:
        from controlplane.cli.everywhere import plan_to  # noqa: PLC0415 - Consul's library, only where it is asked

        if force:
            raise click.UsageError("--force has no meaning with --to")
        plan_to(settings, file, key, as_json=as_json, detailed=detailed_exitcode)
        return
    with output.errors(as_json=as_json):
        given, gateway = read_given(file), settings.gateway()
        proposal = Proposal.of_text(*given, gateway.look)
        with _lines_of(given):
            report = gateway.plan(proposal, ApplyOptions(force=force))
        output.warn(report["warnings"])
    if as_json:
        output.print_json(report)
    else:
        output.show_plan(report)
        if not report["dataplanes"]:
            click.echo("no data plane found: compared with what was applied last", err=True)
    if output.show_failures(report["dataplanes"]) or report["unserved"]:
        sys.exit(1)
    if detailed_exitcode and report["changes"]:
        sys.exit(_CHANGES)


@command(
    "lb-control apply lb.yaml",
    "envsubst < lb.yaml.in | lb-control apply -",
    "lb-control apply lb.yaml --max-remap 10%     # spare sticky clients",
    "lb-control apply lb.yaml --timeout 2m",
    "lb-control apply lb.yaml --to consul-kv:lb/edge --wait",
    "lb-control apply lb.yaml --to consul-kv:lb/edge --canary 1 --observe 2m",
    "lb-control apply --to consul-kv:lb/edge --take-back",
)
@click.argument("file", type=click.Path(path_type=Path), required=False)
@timeout_option
@max_remap_option
@click.option(
    "--force", is_flag=True, help="Overwrite a concurrent change; release what the discovery guard holds."
)
@click.option(
    "--to",
    "key",
    metavar="consul-kv:PATH",
    type=Kind("key", key_of),
    help="Only write FILE to a key in Consul; every daemon that runs the key applies it.",
)
@click.option("--wait", is_flag=True, help="With --to: wait until every live node of FILE's cluster runs it.")
@click.option(
    "--canary",
    metavar="N|NODE,...",
    type=NODES,
    help="With --to: so many nodes, or these, take it first; if their clients fare no worse, all do, else none.",
)
@click.option(
    "--observe", type=DURATION, help="How long a canary's nodes are compared with the others. [60s]"
)
@click.option(
    "--min-connections",
    type=click.IntRange(min=1),
    help="Take a canary back whose nodes had fewer new connections.",
)
@click.option("--take-back", is_flag=True, help="With --to: end a canary that nobody attends to.")
@as_json_option
@click.pass_obj
def apply(  # noqa: PLR0913 - click hands over one argument for each option
    settings: Settings,
    file: Path | None,
    timeout: float,
    max_remap: float | None,
    key: KeySource | None,
    *,
    wait: bool,
    canary: int | tuple[str, ...] | None,
    observe: float | None,
    min_connections: int | None,
    take_back: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Make every data plane run FILE, or standard input for -, and wait until all do.

    Relative paths in what a pipe says are relative to the current directory.

    Exit 0: all run it; 1: one refuses, is unreachable or late, or a service is not served, since nothing is known of its
    backends, or a canary was taken back; it is named; 2: FILE is invalid.
    """
    check_together(
        {
            "FILE": file,
            "--to": key,
            "--wait": wait,
            "--canary": canary,
            "--observe": observe,
            "--min-connections": min_connections,
            "--take-back": take_back,
            "--force": force,
            "--max-remap": max_remap,
        }
    )
    if key is not None:
        from controlplane.cli import everywhere  # noqa: PLC0415 - Consul's library, only where it is asked

        if file is None:
            everywhere.take_back_of(key, as_json=as_json)
            return
        wanted = everywhere.Wanted(
            key,
            timeout,
            force,
            as_json,
            wait,
            canary,
            OBSERVE_S if observe is None else observe,
            min_connections or 0,
            max_remap,
        )
        everywhere.apply_to(settings, file, wanted)
        return
    assert file is not None  # noqa: S101 - as was checked
    with output.errors(as_json=as_json):
        given, gateway = read_given(file), settings.gateway()
        proposal = Proposal.of_text(*given, gateway.look)
        with _lines_of(given):
            report = gateway.apply(proposal, ApplyOptions(timeout, max_remap, force))
    _finish(report, as_json=as_json)


@contextlib.contextmanager
def _lines_of(given: Given) -> Iterator[None]:
    """Say of what a daemon or a data plane finds wrong with a file in which line it stands."""
    try:
        yield
    except InputError as error:
        raise (error if error.source else placed(error, given)) from error


def _finish(report: dict[str, Any], *, as_json: bool) -> None:
    """Print how an apply went, and exit accordingly."""
    output.warn(report["warnings"])
    if as_json:
        output.print_json(report)
    else:
        output.show_plan(report)
    rows = report["dataplanes"]
    done = sum(row["result"] == "ok" for row in rows)
    if report["converged"]:
        if not as_json:
            said = output.counted(done, "data plane") if rows else "no data plane yet"
            click.echo(f"generation {report['generation']} runs on {said}")
        if report["unserved"]:
            names = ", ".join(each["service"] for each in report["unserved"])
            later = "the daemon serves it" if report.get("kept") else "apply again"
            click.echo(output.plain(f"not served: {names}; {later} when that is mended"), err=True)
            sys.exit(1)
        return
    output.show_failures(rows)
    if done:
        repair = "" if report.get("kept") else "; apply again to repair it"
        click.echo(
            f"partly applied: {done} of {len(rows)} data planes run generation {report['generation']}{repair}",
            err=True,
        )
    output.show_later(report, "lb-control rollback")
    sys.exit(1)


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
    _finish(report, as_json=as_json)
