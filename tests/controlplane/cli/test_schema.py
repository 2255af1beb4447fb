"""The JSON Schema of lb.yaml, for editors."""

from __future__ import annotations

import json

from controlplane.cli.schema import schema
from schemas.desired import json_schema
from tests.controlplane.cli.given import run


def test_it_is_printed_whole() -> None:
    """And nothing else, for it goes into a file."""
    result = run(schema, None)
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == json_schema()
