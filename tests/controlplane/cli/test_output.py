"""How results look: safe to print, one line for each change."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from controlplane.cli import output


def test_control_characters_are_shown_and_not_obeyed():
    """An error message from elsewhere cannot rewrite the terminal."""
    assert output.plain("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"action": "add", "kind": "service", "service": "web"}, "+ service web"),
        (
            {"action": "remove", "kind": "listener", "service": "web", "address": "127.0.0.1:1"},
            "- listener web 127.0.0.1:1",
        ),
        (
            {
                "action": "change",
                "kind": "backend",
                "service": "web",
                "id": "a",
                "fields": {"weight": {"from": 1, "to": 2}, "state": {"from": "enabled", "to": "drain"}},
            },
            "~ backend web/a  weight: 1 -> 2, state: enabled -> drain",
        ),
    ],
)
def test_change_is_one_line(change, line):
    """Sign, kind, place, and the fields with their values before and after."""
    assert output.change_line(change) == line


def test_table_goes_into_a_pipe_without_filling(capsys):
    """Lines end where their text does, and cells from elsewhere cannot colour them."""
    output.render(output.table(("a", "b"), [("1", "\x1b[31mx"), ("2", "")]))
    assert capsys.readouterr().out == "a  b\n1  \\x1b[31mx\n2\n"


def test_examples_stay_lines() -> None:
    """They are shown as they are written: one that is wrapped cannot be copied."""
    command = click.Command("x", epilog=output.examples("lb-control a", "lb-control b   # why"))
    shown = CliRunner().invoke(command, ["--help"], terminal_width=20).output
    assert shown.endswith("  Examples:\n    lb-control a\n    lb-control b   # why\n")
