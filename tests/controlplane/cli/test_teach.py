"""How `--help` ends."""

from __future__ import annotations

import click
from click.testing import CliRunner

from controlplane.cli.teach import examples


def test_examples_stay_lines() -> None:
    """They are shown as they are written: one that is wrapped cannot be copied."""
    command = click.Command("x", epilog=examples("lb-control a", "lb-control b   # why"))
    shown = CliRunner().invoke(command, ["--help"], terminal_width=20).output
    assert shown.endswith("  Examples:\n    lb-control a\n    lb-control b   # why\n")
