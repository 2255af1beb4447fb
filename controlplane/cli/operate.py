"""Commands about one backend: drain, enable, disable, weight."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from controlplane.cli import output
from controlplane.cli.completion import backends, services
from controlplane.cli.output import command
from controlplane.cli.settings import Settings, as_json_option
from schemas.quantities import parse_duration

if TYPE_CHECKING:
    from controlplane.operations.gateway import Gateway

_LOOK_S: Final = 0.2

_service = click.argument("service", shell_complete=services)
_backend = click.argument("backend", shell_complete=backends)


@command(
    "lb-control drain web web-1",
    "lb-control drain web web-1 --wait && systemctl restart web",
)
@_service
@_backend
@click.option("--wait", is_flag=True, help="Return when the last connection has gone.")
@as_json_option
@click.pass_obj
def drain(settings: Settings, service: str, backend: str, *, wait: bool, as_json: bool) -> None:
    """Give BACKEND of SERVICE no new connections; those in place finish, until the drain timeout.

    BACKEND is the id that `status` shows. With --wait exit 0: the last connection has gone by itself; 1: the
    drain timeout cut what was left.
    """
    gateway = settings.gateway()
    # What is cut before we look for the first time counts, too: a drain timeout can be shorter than our way there.
    before = _backend_status(gateway, service, backend) if wait else (0, 0)
    _patch(gateway, service, backend, {"state": "drain"}, as_json=as_json)
    if wait:
        timeout_s = parse_duration(gateway.snapshot()["services"][service]["drain"]["timeout"])
        cut = wait_drained(
            before,
            lambda: _backend_status(gateway, service, backend),
            timeout_s=timeout_s,
            clock=time.monotonic,
            sleep=time.sleep,
        )
        if cut:
            click.echo(
                f"{service}/{backend}: drain timeout: {cut} connection{' was' if cut == 1 else 's were'} cut",
                err=True,
            )
            sys.exit(1)
        if not as_json:
            click.echo(output.plain(f"{service}/{backend}: no connection is left"))


@command(
    "lb-control enable web web-1",
    "lb-control enable web 127.0.0.1:5001    # without an id: the address",
)
@_service
@_backend
@as_json_option
@click.pass_obj
def enable(settings: Settings, service: str, backend: str, *, as_json: bool) -> None:
    """Let BACKEND of SERVICE take connections again."""
    _patch(settings.gateway(), service, backend, {"state": "enabled"}, as_json=as_json)


@command(
    "lb-control disable web web-1          # until the server is repaired",
)
@_service
@_backend
@as_json_option
@click.pass_obj
def disable(settings: Settings, service: str, backend: str, *, as_json: bool) -> None:
    """Take BACKEND out of SERVICE: as drain does, and its checks end as well.

    It gets no new connections; those in place finish, until the drain timeout.
    """
    _patch(settings.gateway(), service, backend, {"state": "disabled"}, as_json=as_json)


@command(
    "lb-control weight web web-1 3         # three times the share of weight 1",
    "lb-control weight web web-1 0         # no new connections",
)
@_service
@_backend
@click.argument("weight", metavar="N", type=click.IntRange(0, 256))
@as_json_option
@click.pass_obj
def weight(settings: Settings, service: str, backend: str, weight: int, *, as_json: bool) -> None:
    """Set the share of new connections of BACKEND of SERVICE to N, 0 to 256; 0 takes none."""
    _patch(settings.gateway(), service, backend, {"weight": weight}, as_json=as_json)


def _patch(gateway: Gateway, service: str, backend: str, fields: dict[str, Any], *, as_json: bool) -> None:
    report = gateway.patch(service, backend, fields)
    output.warn(report["warnings"])
    if as_json:
        output.print_json(report)
    if output.show_failures(report["dataplanes"]):
        out = fields.get("state") in {"drain", "disabled"}
        output.show_later(report, shlex.join(["lb-control", "enable", service, backend]) if out else None)
        sys.exit(1)
    if not as_json:
        said = ", ".join(f"{name} {value}" for name, value in fields.items())
        click.echo(output.plain(f"{service}/{backend}: {said}"))


def _backend_status(gateway: Gateway, service: str, backend: str) -> tuple[int, int]:
    """Return a backend's connections, and how many its service has cut at drain timeouts so far."""
    status = gateway.status()["services"].get(service)
    if status is None:
        return 0, 0
    active = sum(each["active"] for each in status["backends"] if each["id"] == backend)
    return active, status["totals"]["closed"].get("drain_timeout", 0)


def wait_drained(
    before: tuple[int, int],
    look: Callable[[], tuple[int, int]],
    *,
    timeout_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> int:
    """Wait until a backend has no connection, or its drain timeout is over (0: it has none); return how many that cut.

    `look` returns its connections, and how many the service has cut at drain timeouts so far; `before` is what it returned
    before the drain began.
    """
    deadline = clock() + timeout_s
    most, cut_before = before
    while True:
        active, cut = look()
        most = max(most, active)
        # Data planes may see the deadline a little before we do, and they count what they cut.
        if active == 0:
            return min(most, cut - cut_before)
        if timeout_s and clock() >= deadline:
            return min(most, active + cut - cut_before)
        sleep(_LOOK_S)
