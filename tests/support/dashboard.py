"""deploy/grafana/livelb.json: its panels, and what they ask Prometheus."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).resolve().parents[2] / "deploy/grafana"
DASHBOARD: Final[dict[str, Any]] = json.loads((FOLDER / "livelb.json").read_text())
_CHOSEN: Final = {"$__rate_interval": "5s", "$job": ".*", "$instance": ".*", "$service": ".*"}
"""What Grafana puts in place of variables, with everything chosen."""


def panels() -> list[dict[str, Any]]:
    """Return every panel that shows something."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def rows() -> dict[str, list[dict[str, Any]]]:
    """Return the panels below each row's title."""
    found: dict[str, list[dict[str, Any]]] = {}
    for panel in DASHBOARD["panels"]:
        if panel["type"] == "row":
            found[panel["title"]] = []
        else:
            found[next(reversed(found))].append(panel)
    return found


def targets(panel: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each question of a panel: PromQL with every variable filled in, and the legend."""
    for target in panel["targets"]:
        expression: str = target["expr"]
        for name, value in _CHOSEN.items():
            expression = expression.replace(name, value)
        yield expression, target["legendFormat"]
