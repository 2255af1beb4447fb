"""Which client gets which backend of a sticky service, as it was computed once: `sticky_vectors.json`.

Nodes of different versions serve side by side, so no version may answer otherwise. What is here is never computed anew: a new
case may be added, with `picked`, and a case that fails is a bug, or a break that the changelog announces.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from dataplane.core.balance.sticky_table import StickyTable, client_key
from dataplane.core.selection import Selection, Standing
from dataplane.core.spec import Mode
from tests.dataplane.core.balance.backends import Backend

FILE: Final = Path(__file__).with_name("sticky_vectors.json")
VECTORS: Final[list[dict[str, Any]]] = json.loads(FILE.read_text())
"""Each: `name`, `seed`, `backends` (`id`, `weight`, `tier`), `table_hash`, and `picks`: of each the ids that are `down`, and by
client address the id of its backend, null for none."""


def tables_of(case: Mapping[str, Any]) -> dict[int, StickyTable]:
    """Build the tables of a case, by tier."""
    tiers: dict[int, list[tuple[str, int]]] = {}
    for each in case["backends"]:
        if each["weight"]:
            tiers.setdefault(each["tier"], []).append((each["id"], each["weight"]))
    return {tier: StickyTable.build_now(members, case["seed"]) for tier, members in tiers.items()}


def selection_of(
    case: Mapping[str, Any],
    tables: Mapping[int, StickyTable],
    down: Collection[str],
    drained: Collection[str] = (),
) -> Selection[Backend]:
    """Return what a node selects from that sees these down, in a case without panic."""
    standings = [
        Standing(
            target=Backend(each["id"]),
            weight=each["weight"],
            tier=each["tier"],
            enabled=each["id"] not in drained,
            healthy=each["id"] not in down,
            reachable=each["id"] not in down,
            ramp=1.0,
        )
        for each in case["backends"]
    ]
    return Selection.build(
        standings, mode=Mode.STICKY, panic=0.0, random=lambda: 0.5, tables=tables, previous=None
    )


def picked(selection: Selection[Backend], seed: str, clients: Iterable[str]) -> dict[str, str | None]:
    """Return the id of each client's backend."""
    found = {}
    for address in clients:
        target = selection.pick(client_key(address.encode(), seed), ())
        found[address] = None if target is None else target.id
    return found
