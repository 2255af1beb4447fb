"""Sticky tables, built in slices between which the loop relays."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from xxhash import xxh3_64_hexdigest

from dataplane.core.balance.sticky import moved_share_steps
from dataplane.core.balance.sticky_table import StickyTable
from dataplane.core.selection import sticky_members
from dataplane.core.spec import BackendSpec, Mode
from dataplane.node.slices import in_slices

_EMPTY = StickyTable.build_now((), "")


async def build_tables(
    mode: Mode, seed: str, specs: Iterable[BackendSpec], known: Mapping[int, StickyTable], known_seed: str
) -> dict[int, StickyTable]:
    """Return the tables of a configuration by tier; nothing outside of mode `sticky`.

    `specs` have overrides applied; those of weight 0 have no place in a table. A `known` table over the same members
    is used again, if it has the same seed.
    """
    if mode is not Mode.STICKY:
        return {}
    tables = {}
    for tier, members in sticky_members(specs).items():
        table = known.get(tier) if seed == known_seed else None
        if table is None or dict(zip(table.ids, table.weights, strict=True)) != dict(members):
            table = await in_slices(StickyTable.build(members, seed))
        tables[tier] = table
    return tables


def tables_hash(tables: Mapping[int, StickyTable]) -> str | None:
    """Return the `table_hash` of a service: equal wherever the same clients get the same backends."""
    if not tables:
        return None
    return xxh3_64_hexdigest("\n".join(f"{tier} {tables[tier].digest}" for tier in sorted(tables)).encode())


async def moved_share(
    old: Mapping[int, StickyTable],
    new: Mapping[int, StickyTable],
    old_usable: Container[str],
    new_usable: Container[str],
) -> float:
    """Return the share of sticky clients, 0..1, that a change would move: of the tier that serves."""
    before = _serving(old, old_usable)
    after = _serving(new, new_usable)
    return await in_slices(moved_share_steps(before, after, old_usable, new_usable))


def _serving(tables: Mapping[int, StickyTable], usable: Container[str]) -> StickyTable:
    for tier in sorted(tables):
        if any(backend_id in usable for backend_id in tables[tier].ids):
            return tables[tier]
    return _EMPTY
