"""Random: as often as the weight says, in exact proportions, nobody twice."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.balance.random import Random
from dataplane.core.spec import Mode
from tests.dataplane.core.balance.backends import SMALL_WEIGHTS, build, members, picks


def test_share_is_the_weight() -> None:
    """Over many picks each backend comes within five standard deviations of its share."""
    got = Counter(picks(build(Mode.RANDOM, members(1, 2, 5)), 8000))
    for id_, weight in (("a", 1), ("b", 2), ("c", 5)):
        share = weight / 8
        assert abs(got[id_] - 8000 * share) < 5 * (8000 * share * (1 - share)) ** 0.5


def test_order_names_the_likeliest_first() -> None:
    """`order` goes by weight, and equal weights stay in configured order."""
    assert [target.id for target in build(Mode.RANDOM, members(1, 3, 1, 3)).order(0)] == ["b", "d", "a", "c"]


@given(weights=SMALL_WEIGHTS, data=st.data())
@settings(deadline=None)
def test_draws_are_exactly_in_proportion(weights, data) -> None:
    """Over all points of the line each place that is left is drawn exactly as often as its weight says."""
    without = data.draw(st.sets(st.integers(0, len(weights) - 1), max_size=len(weights) - 1))
    total = sum(weight for place, weight in enumerate(weights) if place not in without)
    points = iter([(point + 0.5) / total for point in range(total)])
    draw = Random(members(*weights), lambda: next(points))
    got = Counter(draw.draw_without(without) for _ in range(total))
    assert got == {place: weight for place, weight in enumerate(weights) if place not in without}


@given(weights=SMALL_WEIGHTS, data=st.data())
@settings(deadline=None)
def test_short_cuts_draw_the_same(weights, data) -> None:
    """Leaving out nobody, or one, gives what the general draw gives for the same random number."""
    number = data.draw(st.floats(0, 1, exclude_max=True))
    draw = Random(members(*weights), lambda: number)
    assert draw.draw() == draw.draw_without(())
    for one in range(len(weights)):
        assert draw.draw_other(one) == draw.draw_without((one,))


def test_the_largest_random_number() -> None:
    """The last float below one falls into the last place."""
    assert Random(members(256, 256, 256), lambda: 1 - 2**-53).draw() == 2


def test_nothing_left() -> None:
    """With everybody left out there is no draw."""
    assert Random(members(1, 2), lambda: 0.5).draw_without({0, 1}) is None
