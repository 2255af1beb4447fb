"""For shells and editors: what TAB completes, the scripts that make it, and the JSON Schema of lb.yaml.

A completion runs while somebody types. Whatever goes wrong, it offers nothing and says nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from controlplane.cli.output import command, print_json
from controlplane.cli.settings import Settings, settings_of
from controlplane.dataplanes import endpoint, requests
from controlplane.dataplanes.blocking_client import BlockingClient, ask_all

_Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]
_ANSWER_S: Final = 0.5
"""How long a keystroke may wait for a data plane or the daemon that hangs."""
_SHELLS: Final = ("bash", "zsh", "fish")
_PROGRAMS: Final = ("lb-control", "lb-dataplane")
_BASH: Final = """\
%(complete_func)s() {
    local IFS=$'\\n' response completion
    COMPREPLY=()
    response=$(%(complete_var)s=bash_complete COMP_LINE="${COMP_LINE:0:COMP_POINT}" \\
        COMP_WORDBREAKS="$COMP_WORDBREAKS" "$1" 2>/dev/null)
    for completion in $response; do
        case $completion in
            dir,*) compopt -o dirnames ;;
            file,*) compopt -o default ;;
            plain,*) COMPREPLY+=("${completion#plain,}") ;;
        esac
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _Bash(BashComplete):
    """Reads the line as it is typed: bash itself breaks words at colons, which every address has."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        words = split_arg_string(os.environ["COMP_LINE"])
        incomplete = "" if os.environ["COMP_LINE"][-1:].isspace() else words.pop()
        return words[1:], incomplete

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        found = super().get_completions(args, incomplete)
        known = incomplete.rpartition(":")[0] + ":" if ":" in incomplete else ""
        if known and ":" in os.environ.get("COMP_WORDBREAKS", ":"):
            for item in found:  # bash puts what it gets in the place of what follows the last colon
                item.value = item.value.removeprefix(known)
        return found


def use() -> None:
    """Have click complete for bash in our way."""
    add_completion_class(_Bash)


@command(
    'eval "$(lb-control completion bash)"        # in ~/.bashrc',
    'eval "$(lb-control completion zsh)"         # in ~/.zshrc, after compinit',
    "lb-control completion fish | source        # in ~/.config/fish/config.fish",
    "lb-control completion bash > /etc/bash_completion.d/livelb",
)
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> None:
    """Print what makes SHELL complete lb-control and lb-dataplane.

    TAB then completes commands, options and files, and from what runs the names of services, the ids of backends,
    and generations. Nothing is asked that needs longer than half a second.
    """
    use()
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click has all that are offered
    for program in _PROGRAMS:
        variable = f"_{program.upper().replace('-', '_')}_COMPLETE"
        made: type[Any] = BashComplete if kind is _Bash and program != "lb-control" else kind
        click.echo(made(click.Command(program), {}, program, variable).source())


@command(
    "lb-control schema > lb.schema.json",
    "sed -i '1i # yaml-language-server: $schema=lb.schema.json' lb.yaml",
)
def schema() -> None:
    """Print the JSON Schema of lb.yaml.

    Editors with a YAML language server check and complete a file whose first line is
    "# yaml-language-server: $schema=PATH".
    """
    from schemas.desired import json_schema  # noqa: PLC0415 - pydantic, only in commands that need it

    print_json(json_schema())


# --- what is offered ------------------------------------------------------------------------------


def _offering(find: Callable[[click.Context], Mapping[str, str | None]]) -> _Complete:
    """Make a completion of what there is, with what a shell may show beside each: of it, what begins as was typed."""

    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        with contextlib.suppress(Exception):  # the line that is being typed is no place for a message
            found = find(context).items()
            return [CompletionItem(each, help=more) for each, more in found if each.startswith(incomplete)]
        return []

    return complete


@_offering
def services(context: click.Context) -> Mapping[str, str | None]:
    """Offer the services that run."""
    return dict.fromkeys(sorted(_running(context)))


@_offering
def backends(context: click.Context) -> Mapping[str, str | None]:
    """Offer the backends of the service that was named before."""
    service = _running(context)[context.params["service"]]
    return dict.fromkeys(sorted(each["id"] for each in service["backends"]))


@_offering
def generations(context: click.Context) -> Mapping[str, str | None]:
    """Offer the generations of the history, the newest first, with when and by whom."""
    return {
        str(each["generation"]): f"{each['when'][:19]} {each['origin']} {each['by']}"
        for each in reversed(_history(_settings(context)))
    }


@_offering
def _sockets(context: click.Context) -> Mapping[str, str | None]:
    found = endpoint.find_dataplanes(_settings(context).runtime_dir())
    return dict.fromkeys(sorted(each.location for each in found))


def sockets(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Offer the sockets of the data planes in the runtime directory, and files."""
    return _sockets(context, parameter, incomplete) or [CompletionItem(incomplete, type="file")]


def _settings(context: click.Context) -> Settings:
    """Return what the global options on the line say; they are read, but their command has not run."""
    return settings_of(context.find_root().params)


def _running(context: click.Context) -> dict[str, Any]:
    """Return the services of the snapshot that runs, as the daemon or else a data plane has it."""
    settings = _settings(context)
    daemon = settings.daemon()
    answers = _ask("/v1/snapshot", settings.clients() if daemon is None else (daemon,))
    return {name: service for answer in answers for name, service in answer["services"].items()}


def _history(settings: Settings) -> list[dict[str, Any]]:
    daemon = settings.daemon()
    if daemon is not None:
        return [entry for answer in _ask("/v1/history", (daemon,)) for entry in answer["history"]]
    from controlplane.store import Store  # noqa: PLC0415 - only for a TAB

    found: list[dict[str, Any]] = Store(settings.state_dir()).history().report()["history"]
    return found


def _ask(path: str, clients: Sequence[BlockingClient]) -> list[dict[str, Any]]:
    outcomes = ask_all(clients, requests.get(path), timeout_s=_ANSWER_S)
    return [each.answer for each in outcomes if each.answer is not None]
