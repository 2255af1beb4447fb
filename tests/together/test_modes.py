"""Rules that hold for every mode."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.balance.sticky_table import StickyTable
from dataplane.core.selection import BALANCERS
from dataplane.core.spec import Mode
from tests.dataplane.core.balance.backends import KEYS, WEIGHTS, Backend, build, members, picks, tries

DETERMINISTIC = (Mode.RR, Mode.LEASTCONN, Mode.STICKY)
TABLE = StickyTable.build_now([(target.id, 1) for target, _ in members(*[1] * 12)], "seed")


def test_table_names_every_mode() -> None:
    """Each mode has its builder."""
    assert set(BALANCERS) == set(Mode)


@pytest.mark.parametrize("mode", Mode)
@given(weights=WEIGHTS, key=KEYS)
@settings(deadline=None, max_examples=40)
def test_tries_reach_everybody_once(mode: Mode, weights: list[int], key: int) -> None:
    """Successive picks of one connection name each member once, and then nobody."""
    of = members(*weights)
    assert sorted(tries(build(mode, of, table=TABLE), key)) == sorted(target.id for target, _ in of)


@pytest.mark.parametrize("mode", Mode)
@given(weights=WEIGHTS, key=KEYS, before=st.integers(0, 40), loads=st.lists(st.integers(0, 5), min_size=12))
@settings(deadline=None, max_examples=40)
def test_order_names_everybody_and_changes_nothing(mode, weights, key, before, loads) -> None:
    """`order` yields each member once, and the picks after it are those that had come without it."""
    asked, unasked = members(*weights), members(*weights)
    balancers = []
    for of in (asked, unasked):
        for (target, _), active in zip(of, loads, strict=False):
            target.active = active
        balancers.append(build(mode, of, table=TABLE))
        for number in range(before):
            balancers[-1].pick(number, ())
    order = [target.id for target in balancers[0].order(key)]
    assert sorted(order) == sorted(target.id for target, _ in asked)
    assert [balancers[0].pick(n, ()).id for n in range(30)] == [
        balancers[1].pick(n, ()).id for n in range(30)
    ]


@pytest.mark.parametrize("mode", DETERMINISTIC)
@given(weights=WEIGHTS, key=KEYS, before=st.integers(0, 40))
@settings(deadline=None, max_examples=60)
def test_order_is_the_order_of_picks(mode, weights, key, before) -> None:
    """Where nothing is random, picks of one connection follow what `order` has said."""
    balancer = build(mode, members(*weights), table=TABLE)
    for number in range(before):
        balancer.pick(number, ())
    assert [target.id for target in balancer.order(key)] == tries(balancer, key)


@pytest.mark.parametrize("mode", Mode)
def test_nobody(mode: Mode) -> None:
    """Without members there is no pick, and no order."""
    balancer = build(mode, [])
    assert balancer.pick(1, ()) is None
    assert balancer.pick(1, (Backend("x"),)) is None
    assert list(balancer.order(1)) == []


@pytest.mark.parametrize("mode", Mode)
def test_strangers_among_tried(mode: Mode) -> None:
    """What was tried and is no longer a member does not matter."""
    of = members(3, 1)
    balancer = build(mode, of, table=TABLE)
    assert balancer.pick(1, (Backend("gone"), of[0][0])) is of[1][0]


@pytest.mark.parametrize("mode", Mode)
def test_change_of_mode(mode: Mode) -> None:
    """A balancer of another mode may be `previous`; it says nothing."""
    of = members(1, 1)
    for other in Mode:
        assert picks(build(mode, of, previous=build(other, of), table=TABLE), 1)[0] in "ab"


@pytest.mark.parametrize("mode", Mode)
def test_changed_accepts_strangers(mode: Mode) -> None:
    """A target that has left may still report a change of its connections."""
    of = members(1, 1)
    balancer = build(mode, of, table=TABLE)
    balancer.changed(Backend("gone", active=3))
    assert sorted(tries(balancer)) == ["a", "b"]


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.STICKY])
@given(weights=WEIGHTS, place=st.integers(0, 11), weight=st.integers(1, 256), key=KEYS)
@settings(deadline=None, max_examples=40)
def test_reweighed_is_as_built(mode, weights, place, weight, key) -> None:
    """Before its first pick, a balancer whose weight was changed does what one that was built so does."""
    of = members(*weights)
    balancer = build(mode, of)
    target, old = of[place % len(of)]
    assert balancer.reweigh(target, old, weight)
    of[place % len(of)] = (target, weight)
    other = build(mode, of)
    if mode is Mode.RR:  # there it is behind others whose turn comes at the same time
        assert sorted(tries(balancer, key)) == sorted(tries(other, key))
    else:
        assert picks(balancer, 30) == picks(other, 30)
        assert tries(balancer, key) == tries(other, key)


@pytest.mark.parametrize("mode", Mode)
def test_strangers_are_not_reweighed(mode: Mode) -> None:
    """Who is not a member needs a new balancer, and nothing has changed."""
    of = members(3, 1)
    balancer = build(mode, of, table=TABLE)
    assert not balancer.reweigh(Backend("gone"), 3, 2)
    assert sorted(tries(balancer)) == ["a", "b"]


def test_only_leastconn_tracks_load() -> None:
    """Nobody else needs to be told of changes."""
    assert [mode for mode in Mode if build(mode, members(1)).tracks_load] == [Mode.LEASTCONN]
