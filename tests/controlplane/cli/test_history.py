"""The past, and back to it."""

from __future__ import annotations

import json
from typing import Any

from controlplane.cli.history import history, rollback
from controlplane.operations.options import ApplyOptions
from tests.controlplane.cli.given import Given, run


def entry(generation: int, changes: int = 1, more: int = 0) -> dict[str, Any]:
    """Return what was applied once."""
    change = {"action": "add", "kind": "backend", "service": "web"}
    return {
        "generation": generation,
        "when": f"2026-01-01T00:00:{generation:02}.000Z",
        "origin": "apply",
        "by": "root\x1b[31m",
        "changes": [{**change, "id": f"b{number}"} for number in range(changes)],
        "more": more,
    }


class Past:
    """A gateway that knows what was, and takes note of who wants to go back."""

    def __init__(self, *entries: dict[str, Any], warnings: tuple[str, ...] = ()) -> None:
        self._report = {"history": list(entries), "warnings": list(warnings)}
        self.asked: list[tuple[int | None, ApplyOptions]] = []

    def history(self) -> dict[str, Any]:
        """Return it."""
        return self._report

    def rollback(self, generation: int | None, options: ApplyOptions) -> dict[str, Any]:
        """Return as what a data plane without changes does."""
        self.asked.append((generation, options))
        impact: dict[str, Any] = {"listeners": [], "drain": [], "pool": [], "remap": {}}
        done = {"converged": True, "dataplanes": [], "unserved": [], "warnings": []}
        return {"restored": generation or 1, "generation": 3, "changes": [], "impact": impact, **done}


def test_each_generation_has_its_lines() -> None:
    """When, whence, by whom; then what changed, a handful of it; nothing that a terminal would obey."""
    result = run(history, Given(gateway=Past(entry(1), entry(2, changes=7, more=2))))
    assert result.stdout.splitlines() == [
        "1  2026-01-01 00:00:01  apply  root\\x1b[31m",
        "    + backend web/b0",
        "2  2026-01-01 00:00:02  apply  root\\x1b[31m",
        *(f"    + backend web/b{number}" for number in range(5)),
        "    and 4 more",
    ]


def test_the_newest_so_many() -> None:
    """The oldest of them first, for scripts as well."""
    given = Given(gateway=Past(*map(entry, (1, 2, 3))))
    shown = json.loads(run(history, given, "--limit", "2", "--json").stdout)
    assert [each["generation"] for each in shown] == [2, 3]
    assert run(history, given, "--limit", "0").exit_code == 2


def test_nothing_was_applied() -> None:
    """Said, unless it is only unknown: then the warning says it."""
    assert run(history, Given(gateway=Past())).stdout == "nothing was applied yet\n"
    result = run(history, Given(gateway=Past(warnings=("line 3 is broken",))))
    assert (result.stdout, result.stderr) == ("", "warning: line 3 is broken\n")


def test_a_rollback_names_what_it_went_back_to() -> None:
    """With a number, or to the content before; options of an apply hold."""
    past = Past()
    result = run(rollback, Given(gateway=past), "41", "--max-remap", "10%", "--timeout", "5s", "--force")
    assert result.exit_code == 0
    assert result.stdout.startswith("back to the content of generation 41\n")
    assert run(rollback, Given(gateway=past)).exit_code == 0
    assert past.asked == [(41, ApplyOptions(5.0, 0.1, True)), (None, ApplyOptions(30.0, None, False))]
    assert json.loads(run(rollback, Given(gateway=past), "--json").stdout)["restored"] == 1
