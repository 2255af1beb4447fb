"""The command line: global options, and a table of commands whose modules load when they are used.

Exit codes: 0 done; 1 refused, unreachable or late; 2 the input is invalid. `ready` and `plan` say theirs.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from controlplane.cli.completion import sockets, use
from controlplane.cli.output import examples
from controlplane.cli.settings import settings_of
from controlplane.errors import ControlError

_GROUPS: Final = {
    "Say what should be": {
        "validate": ("files", "Check an lb.yaml: every error at once, with its line."),
        "plan": ("files", "Show what a file would change, and whom it would hit."),
        "apply": ("files", "Make the data planes run a file; wait until all do."),
        "run": ("run", "Be the daemon: watch the file and Consul, push, serve."),
    },
    "See what is": {
        "status": ("status", "Show what runs, how it fares, and whether all agree."),
        "top": ("top", "Watch services and backends live; drain and enable by key."),
        "nodes": ("nodes", "Show who is in the cluster, who is gone, behind or not ready."),
        "explain": ("status", "Tell which backends a client would get, and why."),
        "ready": ("status", "Exit 0 if this node may receive traffic."),
    },
    "Look after a backend": {
        "drain": ("operate", "Give it no new connections; those in place finish."),
        "enable": ("operate", "Let it take connections again."),
        "disable": ("operate", "Drain it, and end its checks."),
        "weight": ("operate", "Set its share of new connections."),
    },
    "Look after this node": {
        "node": ("node", "Show it; drain it to switch it off, enable it again."),
        "announce": ("announce", "Tell routers whether it may have clients (ExaBGP, BIRD)."),
    },
    "Go back, renew": {
        "history": ("files", "List what was applied: when, by whom, what changed."),
        "rollback": ("files", "Return to an earlier generation's content."),
        "restart": ("status", "Replace the data planes' workers one at a time."),
    },
    "For editors and shells": {
        "schema": ("completion", "Print the JSON Schema of lb.yaml."),
        "completion": ("completion", "Print what makes a shell complete these commands."),
    },
}
"""Commands in the order of their use, each with its module and one line: `--help` reads only this, and loads nothing."""
_COMMANDS: Final = {name: module for group in _GROUPS.values() for name, (module, _) in group.items()}
_F = TypeVar("_F", bound=Callable[..., Any])
_FILE: Final = click.Path(path_type=Path)
_FOLDER: Final = click.Path(file_okay=False, path_type=Path)
_EPILOG: Final = examples(
    "lb-control validate lb.yaml && lb-control plan lb.yaml",
    "lb-control apply lb.yaml",
    "lb-control status --watch",
    "lb-control drain web web-1 --wait",
    "lb-control COMMAND --help           # every command has examples",
)


class _Lazy(click.Group):
    """Loads a command's module when the command is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"controlplane.cli.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        width = max(map(len, _COMMANDS))
        for title, group in _GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, (_, text) in group.items()])


def _pem(name: str, text: str) -> Callable[[_F], _F]:
    return click.option(name, type=_FILE, metavar="PEM", help=text)


@click.group(cls=_Lazy, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--runtime-dir", type=_FOLDER, metavar="DIR", help="Where the sockets are.  [$LB_RUNTIME_DIR, /run/lb]"
)
@click.option(
    "--state-dir", type=_FOLDER, metavar="DIR", help="Where the history is.  [$LB_STATE_DIR, /var/lib/lb]"
)
@click.option(
    "--dataplane",
    "dataplanes",
    multiple=True,
    metavar="SOCKET|URL",
    shell_complete=sockets,
    help="Speak to this data plane; repeatable. Without it: all in the runtime directory.",
)
@click.option("--token-file", type=_FILE, metavar="FILE", help="The token for data planes behind a URL.")
@_pem("--ca-file", "Authorities to trust for https:// data planes.  [$LB_CA_FILE, the system's]")
@_pem("--cert-file", "The certificate for https:// data planes that ask for one.  [$LB_CERT_FILE]")
@_pem("--key-file", "Its key, if not in the same file; not encrypted.  [$LB_KEY_FILE]")
@click.version_option(package_name="livelb")
@click.pass_context
def cli(ctx: click.Context, /, **given: Any) -> None:
    """Control livelb's data planes: one file says what should be, and every change is applied live."""
    ctx.obj = settings_of(given)


def main() -> None:
    """Run a command; what goes wrong is one message on stderr and an exit code."""
    use()
    try:
        cli(prog_name="lb-control")
    except ControlError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nobody is left to tell, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
