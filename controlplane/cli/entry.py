"""The command line: global options, and a table of commands whose modules load when they are used.

Exit codes: 0 done; 1 refused, unreachable or late; 2 the input is invalid. `ready` and `plan` say theirs.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Final

import click

from controlplane.cli.settings import Settings
from controlplane.errors import ControlError

__all__ = ["main"]

_COMMANDS: Final = {
    "validate": ("files", "Check an lb.yaml: every error at once, with its line."),
    "plan": ("files", "Show what a file would change, and whom it would hit."),
    "apply": ("files", "Make the data planes run a file, and wait until all do."),
    "run": ("run", "Be the daemon: watch the file and Consul, push, serve the control socket."),
    "status": ("status", "Show what runs, how it fares, and whether all agree."),
    "top": ("top", "Watch services and backends live; drain and enable by key."),
    "drain": ("operate", "Give a backend no new connections; those in place finish."),
    "enable": ("operate", "Let a backend take connections again."),
    "disable": ("operate", "Take a backend out of service at once."),
    "weight": ("operate", "Set a backend's share of new connections."),
    "explain": ("explain", "Tell which backends a client would get, in order, and why not others."),
    "history": ("history", "List every applied generation: when, by whom, what changed."),
    "rollback": ("history", "Return to an earlier generation's content, as a new generation."),
    "ready": ("ready", "Exit 0 if this node may receive traffic."),
    "restart": ("restart", "Replace the data planes' workers one at a time."),
    "schema": ("schema", "Print the JSON Schema of lb.yaml, for editors."),
}
"""Name to module and one line of help: `--help` reads only this, and loads nothing."""


class _Lazy(click.Group):
    """Loads a command's module when the command is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"controlplane.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--runtime-dir", type=click.Path(path_type=Path), help="Where the sockets are. [$LB_RUNTIME_DIR]"
)
@click.option("--state-dir", type=click.Path(path_type=Path), help="Where the history is. [$LB_STATE_DIR]")
@click.option(
    "--dataplane",
    "dataplanes",
    multiple=True,
    metavar="SOCKET|URL",
    help="Speak to this data plane; repeatable. Without it: all in the runtime directory.",
)
@click.option("--token-file", type=click.Path(path_type=Path), help="The token for data planes behind a URL.")
@click.version_option(package_name="livelb")
@click.pass_context
def cli(
    ctx: click.Context,
    runtime_dir: Path | None,
    state_dir: Path | None,
    dataplanes: tuple[str, ...],
    token_file: Path | None,
) -> None:
    """Control livelb's data planes: one file says what should be, and every change is applied live."""
    ctx.obj = Settings(os.environ, runtime_dir, state_dir, dataplanes, token_file)


def main() -> None:
    """Run a command; what goes wrong is one message on stderr and an exit code."""
    try:
        cli(prog_name="lb-control")
    except ControlError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nobody is left to tell, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
