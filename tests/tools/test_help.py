"""`--help` teaches by example: each command has some, they are real, and they fit a terminal."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator

import click
import pytest

from controlplane.cli import entry
from dataplane import cli as dataplane_cli
from tests.support.dataplane import command

COLUMNS = 80
VARIABLE = re.compile(r"[A-Z_]+=")


def commands() -> dict[str, click.Command]:
    """Return every command by what one types for it."""
    context = click.Context(entry.cli, info_name="lb-control")
    found: dict[str, click.Command] = {"lb-dataplane": dataplane_cli.main, "lb-control": entry.cli}
    for name in entry.cli.list_commands(context):
        each = entry.cli.get_command(context, name)
        assert each is not None
        found[f"lb-control {name}"] = each
        if isinstance(each, click.Group):
            found |= {f"lb-control {name} {sub}": command for sub, command in each.commands.items()}
    return found


ALL = commands()


def shown(name: str) -> str:
    """Return a command's help as a terminal of 80 columns shows it."""
    context = click.Context(
        ALL[name], info_name=name, terminal_width=COLUMNS, help_option_names=["-h", "--help"]
    )
    return ALL[name].get_help(context)


def examples(name: str) -> list[str]:
    """Return the lines below "Examples:", without comments."""
    _, _, after = shown(name).partition("\n  Examples:\n")
    return [line.partition("  # ")[0].strip() for line in after.splitlines() if line.strip()]


def ours(line: str) -> Iterator[list[str]]:
    """Yield the words of each command of ours in a line of shell."""
    line = re.sub(r'^eval "\$\((.*)\)"$', r"\1", line)
    for part in re.split(r"&&|\||>", line):
        words = shlex.split(part)
        while words and VARIABLE.match(words[0]):
            words.pop(0)
        if words and words[0] in {"lb-control", "lb-dataplane"}:
            yield words


def parse(words: list[str]) -> str:
    """Have click read a command line, run nothing, and tell which command it is."""
    program, *arguments = words
    if program == "lb-dataplane":
        dataplane_cli.main.make_context(program, arguments)
        return program
    command: click.Command = entry.cli
    context = command.make_context(program, arguments)
    while isinstance(command, click.Group) and (rest := [*context._protected_args, *context.args]):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command, context = found, found.make_context(name, rest, parent=context)
        program += f" {name}"
    return program


@pytest.mark.parametrize("name", ALL)
def test_each_command_has_examples_of_itself(name):
    """What stands below "Examples:" are command lines that the program takes, and at least one is this command's."""
    lines = examples(name)
    assert lines
    parsed = [parse(words) for line in lines for words in ours(line) if "COMMAND" not in words]
    assert any(each.startswith(name) for each in parsed)


@pytest.mark.parametrize("name", ALL)
def test_help_fits_a_terminal(name):
    """No line is longer than 80 columns, and each option says what it is for."""
    assert [line for line in shown(name).splitlines() if len(line) > COLUMNS] == []
    silent = [
        option.name for option in ALL[name].params if isinstance(option, click.Option) and not option.help
    ]
    assert silent == []


@pytest.mark.parametrize("name", ["lb-dataplane", "lb-control", "lb-control drain"])
def test_the_short_option_shows_the_same(name):
    """`-h` is `--help`."""
    program, *rest = name.split()
    long, short = (
        subprocess.run(
            [command(program), *rest, option],
            env={**os.environ, "COLUMNS": str(COLUMNS)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for option in ("--help", "-h")
    )
    assert long == short
    assert "Examples:" in long


def test_commands_are_listed_in_the_order_of_use():
    """The list names every command once, in groups: first what one needs first."""
    text = shown("lb-control")
    listed = re.findall(r"^  ([a-z]+) {2,}\S", text, flags=re.MULTILINE)
    assert listed == list(entry._COMMANDS)
    assert [f"lb-control {each}" for each in listed] == [name for name in ALL if name.count(" ") == 1]
    assert listed[:4] == ["validate", "plan", "apply", "run"]
    assert (
        text.index("Say what should be:") < text.index("See what is:") < text.index("Look after a backend:")
    )
