"""The options of a change for many nodes: what they mean, and which of them fit together."""

from __future__ import annotations

import click
import pytest

from controlplane.cli.canary_options import NODES, check_together


@pytest.mark.parametrize(
    ("text", "nodes"),
    [("1", 1), ("12", 12), ("lb-1", ("lb-1",)), ("b, a,b", ("b", "a")), ("7,8", ("7", "8"))],
)
def test_nodes(text, nodes):
    """A number, or names, each once."""
    assert NODES.convert(text, None, None) == nodes


@pytest.mark.parametrize("text", ["0", "", "a,", ",a"])
def test_nodes_that_are_none(text):
    """They are refused."""
    with pytest.raises(click.BadParameter):
        NODES.convert(text, None, None)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("FILE",), None),
        (("FILE", "--to", "--force"), None),
        (("FILE", "--to", "--wait", "--max-remap"), None),
        (("FILE", "--to", "--canary", "--observe", "--min-connections"), None),
        (("--to", "--take-back"), None),
        (("FILE", "--wait"), "--wait needs --to"),
        (("FILE", "--canary"), "--canary needs --to"),
        (("--take-back",), "--take-back needs --to"),
        (("FILE", "--to", "--observe"), "--observe needs --canary"),
        (("FILE", "--to", "--min-connections"), "--min-connections needs --canary"),
        (("FILE", "--to", "--take-back"), "--take-back and FILE exclude each other"),
        (("--to", "--take-back", "--canary"), "exclude each other"),
        (("FILE", "--to", "--canary", "--force"), "--canary and --force exclude each other"),
        (("--to",), "Missing argument 'FILE'"),
        ((), "Missing argument 'FILE'"),
    ],
)
def test_which_fit_together(given, said):
    """Others are a usage error that names both."""
    names = ("FILE", "--to", "--wait", "--canary", "--observe", "--min-connections", "--take-back", "--force")
    values = {**dict.fromkeys(names), "--wait": False, "--max-remap": None, **dict.fromkeys(given, True)}
    if said is None:
        check_together(values)
    else:
        with pytest.raises(click.UsageError, match=said):
            check_together(values)
