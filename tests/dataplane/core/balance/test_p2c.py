"""Power of two choices: two different ones, the less loaded wins."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.spec import Mode
from tests.dataplane.core.balance.backends import SMALL_WEIGHTS, build, members, picks


@given(weights=SMALL_WEIGHTS.filter(lambda weights: len(weights) > 1), seed=st.integers(0, 1000))
@settings(deadline=None)
def test_the_most_loaded_is_never_picked(weights, seed) -> None:
    """The two choices differ, so the one backend that is more loaded than all others never wins."""
    of = members(*weights)
    of[0][0].active = 1000 * weights[0]
    assert "a" not in picks(build(Mode.P2C, of, seed=seed), 30)


def test_load_is_per_weight() -> None:
    """Of two backends the one with fewer connections per weight gets all."""
    of = members(1, 10)
    of[0][0].active, of[1][0].active = 2, 10
    assert set(picks(build(Mode.P2C, of), 20)) == {"b"}
    of[1][0].active = 30
    assert set(picks(build(Mode.P2C, of), 20)) == {"a"}


def test_equal_loads_follow_the_weights() -> None:
    """Idle backends are picked by weight, within five standard deviations."""
    got = Counter(picks(build(Mode.P2C, members(1, 3)), 4000))
    assert abs(got["b"] - 3000) < 5 * (4000 * 0.75 * 0.25) ** 0.5


def test_order_is_by_load() -> None:
    """`order` names the least loaded first."""
    of = members(1, 1, 4)
    for (target, _), active in zip(of, (3, 1, 8), strict=True):
        target.active = active
    assert [target.id for target in build(Mode.P2C, of).order(0)] == ["b", "c", "a"]
