"""The command that replaces workers one at a time."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from controlplane.cli import output
from controlplane.cli.kinds import DURATION
from controlplane.cli.teach import examples

if TYPE_CHECKING:
    from controlplane.blocking import BlockingClient
    from controlplane.cli.settings import Settings

__all__ = ["restart"]

_LOOK_S: Final = 0.2
_ANSWER_S: Final = 5.0


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
    from controlplane.errors import DataPlaneError  # noqa: PLC0415 - loaded by the commands that need it

    if client.endpoint.is_url:
        return "is on another machine: signals do not reach it"
    try:
        answer_s = min(_ANSWER_S, timeout_s)
        old = _workers(client, answer_s)
        pid = client.peer_pid()
        if set(old) == {pid}:
            return "is a single process: start its successor with `lb-dataplane --takeover`"
        os.kill(pid, signal.SIGHUP)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            new = _workers(client, answer_s)
            if len(new) == len(old) and not set(new) & set(old):
                return None
            time.sleep(_LOOK_S)
    except DataPlaneError as error:
        return str(error)
    except PermissionError:
        return "may not be signalled: it belongs to another user"
    return f"workers are still the old ones after {timeout_s:.3g} s"


def _workers(client: BlockingClient, timeout_s: float) -> list[int]:
    from controlplane import calls  # noqa: PLC0415 - loaded by the commands that need it

    status: dict[str, Any] = client.ask(calls.get("/v1/status"), timeout_s=timeout_s)
    return [worker["pid"] for worker in status["workers"]]
