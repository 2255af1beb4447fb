"""Sticky: a client stays, and moves only with its backend."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.balance.sticky import moved_share_steps
from dataplane.core.balance.sticky_table import StickyTable, client_key, finish
from dataplane.core.spec import Mode
from tests.dataplane.core.balance.backends import KEYS, build, members, tries

OF = members(1, 1, 1, 1, 2)
TABLE = StickyTable.build_now([(target.id, weight) for target, weight in OF], "seed")
CLIENTS = [client_key(number.to_bytes(4, "big"), "seed") for number in range(6000)]


def owners(*down: str) -> list[str]:
    """Return each client's backend while some are unusable."""
    balancer = build(Mode.STICKY, [member for member in OF if member[0].id not in down], table=TABLE)
    return [balancer.pick(key, ()).id for key in CLIENTS]


def test_clients_of_a_lost_backend_spread_by_weight_and_nobody_else_moves() -> None:
    """The lost one's clients go to all others in proportion to their weights; the rest stays."""
    before, after = owners(), owners("a")
    assert all(will == was for was, will in zip(before, after, strict=True) if was != "a")
    moved = Counter(will for was, will in zip(before, after, strict=True) if was == "a")
    count = sum(moved.values())
    for id_, weight in (("b", 1), ("c", 1), ("d", 1), ("e", 2)):
        assert abs(moved[id_] - count * weight / 5) < 5 * (count * weight / 5 * (1 - weight / 5)) ** 0.5


def test_a_second_loss_moves_its_own_clients_only() -> None:
    """With one down already, the next one that fails moves those that it had then."""
    before, after = owners("a"), owners("a", "b")
    assert all(will == was for was, will in zip(before, after, strict=True) if was != "b")


@given(key=KEYS, down=st.sets(st.sampled_from("abcde"), max_size=4))
@settings(deadline=None)
def test_tried_is_like_unusable(key: int, down: set[str]) -> None:
    """A client whose choice fails goes where it would go if that backend was known to be down."""
    everybody = build(Mode.STICKY, OF, table=TABLE)
    tried = tuple(target for target, _ in OF if target.id in down)
    left = build(Mode.STICKY, [member for member in OF if member[0].id not in down], table=TABLE)
    assert everybody.pick(key, tried) is left.pick(key, ())


@given(key=KEYS)
@settings(deadline=None)
def test_order_of_members_does_not_matter(key: int) -> None:
    """Nodes that list backends differently choose the same."""
    assert tries(build(Mode.STICKY, OF, table=TABLE), key) == tries(
        build(Mode.STICKY, OF[::-1], table=TABLE), key
    )


def test_one_of_very_many_left() -> None:
    """If nearly nobody is usable, a client still has one fixed backend, and only a lost one's clients move."""
    many = members(*[1] * 2000)
    table = StickyTable.build_now([(target.id, weight) for target, weight in many], "seed")
    three = build(Mode.STICKY, many[:3], table=table)
    two = build(Mode.STICKY, many[:2], table=table)
    before = [three.pick(key, ()) for key in CLIENTS[:900]]
    after = [two.pick(key, ()) for key in CLIENTS[:900]]
    lost = many[2][0]
    assert all(will is was for was, will in zip(before, after, strict=True) if was is not lost)
    assert min(Counter(target.id for target in before).values()) > 220


def test_members_outside_of_the_table_are_the_last_choice() -> None:
    """A backend that the table does not know yet serves only if no other is left."""
    more = [*members(1, 1, 1, 1, 2, 1)[5:], OF[0]]
    balancer = build(Mode.STICKY, more, table=TABLE)
    assert {balancer.pick(key, ()).id for key in CLIENTS[:50]} == {"a"}
    assert tries(balancer, CLIENTS[0]) == ["a", "f"]


def test_without_a_table_clients_stick_by_weight() -> None:
    """Until there is a table, clients stick to a backend all the same, and the weights hold."""
    balancer = build(Mode.STICKY, members(1, 3))
    got = Counter(balancer.pick(key, ()).id for key in CLIENTS)
    assert abs(got["b"] - 4500) < 5 * (6000 * 0.75 * 0.25) ** 0.5
    assert [balancer.pick(key, ()).id for key in CLIENTS[:9]] == [
        balancer.pick(key, ()).id for key in CLIENTS[:9]
    ]


EVEN = members(1, 1, 1, 1)
IDS = frozenset(target.id for target, _ in EVEN)
EVEN_TABLE = StickyTable.build_now([(target.id, weight) for target, weight in EVEN], "seed")
WITHOUT_A = StickyTable.build_now([(target.id, weight) for target, weight in EVEN[1:]], "seed")
EMPTY = StickyTable.build_now([], "seed")


def moved_share(*args: Any) -> float:
    """Return the share in one go."""
    return finish(moved_share_steps(*args))


def test_nothing_changes() -> None:
    """The same configuration moves nobody, whoever is down."""
    assert moved_share(EVEN_TABLE, EVEN_TABLE, IDS, IDS) == 0
    assert moved_share(EVEN_TABLE, EVEN_TABLE, {"a", "b"}, {"a", "b"}) == 0
    assert moved_share(EMPTY, EMPTY, IDS, IDS) == 0


@pytest.mark.parametrize(
    ("new", "usable", "share"),
    [
        (EVEN_TABLE, IDS - {"a"}, 0.25),
        (WITHOUT_A, IDS, 0.25),
        (EVEN_TABLE, {"a"}, 0.75),
        (EVEN_TABLE, set(), 1),
        (EMPTY, IDS, 1),
    ],
    ids=["one down", "one removed", "three down", "all down", "all removed"],
)
def test_what_moves_is_counted(new: StickyTable, usable: set[str], share: float) -> None:
    """A backend's clients move when it goes, and hardly anybody else; so they do when it comes."""
    assert moved_share(EVEN_TABLE, new, IDS, usable) == pytest.approx(share, abs=0.005)
    assert moved_share(new, EVEN_TABLE, usable, IDS) == pytest.approx(share, abs=0.005)


def test_it_agrees_with_picks() -> None:
    """Of many clients the announced share really moves, within five standard deviations."""
    usable = IDS - {"b"}
    announced = moved_share(EVEN_TABLE, WITHOUT_A, usable, usable)
    before = build(Mode.STICKY, [member for member in EVEN if member[0].id in usable], table=EVEN_TABLE)
    after = build(Mode.STICKY, [member for member in EVEN[1:] if member[0].id in usable], table=WITHOUT_A)
    keys = [client_key(number.to_bytes(4, "big"), "seed") for number in range(6000)]
    moved = sum(before.pick(key, ()) is not after.pick(key, ()) for key in keys)
    assert abs(moved - 6000 * announced) < 5 * (6000 * announced * (1 - announced)) ** 0.5


def test_slices_are_many() -> None:
    """The count yields more often where second choices make it dear."""
    cheap = sum(1 for _ in moved_share_steps(EVEN_TABLE, EVEN_TABLE, IDS, IDS))
    dear = sum(1 for _ in moved_share_steps(EVEN_TABLE, EVEN_TABLE, IDS, {"a"}))
    assert 100 < cheap < dear
