"""The share of sticky clients that a change moves."""

from __future__ import annotations

from typing import Any

import pytest

from dataplane.core.balance.remap import moved_share_steps
from dataplane.core.balance.sticky_table import StickyTable, client_key, finish
from dataplane.core.spec import Mode
from tests.dataplane.core.balance.backends import build, members

OF = members(1, 1, 1, 1)
IDS = frozenset(target.id for target, _ in OF)
TABLE = StickyTable.build_now([(target.id, weight) for target, weight in OF], "seed")
WITHOUT_A = StickyTable.build_now([(target.id, weight) for target, weight in OF[1:]], "seed")
EMPTY = StickyTable.build_now([], "seed")


def moved_share(*args: Any) -> float:
    """Return the share in one go."""
    return finish(moved_share_steps(*args))


def test_nothing_changes() -> None:
    """The same configuration moves nobody, whoever is down."""
    assert moved_share(TABLE, TABLE, IDS, IDS) == 0
    assert moved_share(TABLE, TABLE, {"a", "b"}, {"a", "b"}) == 0
    assert moved_share(EMPTY, EMPTY, IDS, IDS) == 0


@pytest.mark.parametrize(
    ("new", "usable", "share"),
    [
        (TABLE, IDS - {"a"}, 0.25),
        (WITHOUT_A, IDS, 0.25),
        (TABLE, {"a"}, 0.75),
        (TABLE, set(), 1),
        (EMPTY, IDS, 1),
    ],
    ids=["one down", "one removed", "three down", "all down", "all removed"],
)
def test_what_moves_is_counted(new: StickyTable, usable: set[str], share: float) -> None:
    """A backend's clients move when it goes, and hardly anybody else; so they do when it comes."""
    assert moved_share(TABLE, new, IDS, usable) == pytest.approx(share, abs=0.005)
    assert moved_share(new, TABLE, usable, IDS) == pytest.approx(share, abs=0.005)


def test_it_agrees_with_picks() -> None:
    """Of many clients the announced share really moves, within five standard deviations."""
    usable = IDS - {"b"}
    announced = moved_share(TABLE, WITHOUT_A, usable, usable)
    before = build(Mode.STICKY, [member for member in OF if member[0].id in usable], table=TABLE)
    after = build(Mode.STICKY, [member for member in OF[1:] if member[0].id in usable], table=WITHOUT_A)
    keys = [client_key(number.to_bytes(4, "big"), "seed") for number in range(6000)]
    moved = sum(before.pick(key, ()) is not after.pick(key, ()) for key in keys)
    assert abs(moved - 6000 * announced) < 5 * (6000 * announced * (1 - announced)) ** 0.5


def test_slices_are_many() -> None:
    """The count yields more often where second choices make it dear."""
    cheap = sum(1 for _ in moved_share_steps(TABLE, TABLE, IDS, IDS))
    dear = sum(1 for _ in moved_share_steps(TABLE, TABLE, IDS, {"a"}))
    assert 100 < cheap < dear
