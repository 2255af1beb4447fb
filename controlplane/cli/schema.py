"""The command that prints lb.yaml's JSON Schema."""

from __future__ import annotations

import click

from controlplane.cli import output
from controlplane.cli.teach import examples

__all__ = ["schema"]


@click.command(
    epilog=examples(
        "lb-control schema > lb.schema.json",
        "sed -i '1i # yaml-language-server: $schema=lb.schema.json' lb.yaml",
    )
)
def schema() -> None:
    """Print the JSON Schema of lb.yaml.

    Editors with a YAML language server check and complete a file whose first line is
    "# yaml-language-server: $schema=PATH".
    """
    from schemas.desired import json_schema  # noqa: PLC0415 - pydantic, only in commands that need it

    output.print_json(json_schema())
