"""Weights of any size become 0..256 without losing what they mean."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.instances import Instance
from controlplane.core.weights import MAX_WEIGHT, fitting


def table(**weights):
    """Instances with these weights."""
    return [Instance(name, f"{name}:1", weight=weight) for name, weight in weights.items()]


def test_weights_that_fit_stay():
    """Weights up to 256 stay exactly as they are, and there is nothing to tell."""
    assert fitting(table(a=256, b=3, c=0)) == ({"a": 256, "b": 3, "c": 0}, ())


def test_the_proportion_stays():
    """1000 and 300 become 256 and 77: the larger one keeps its 77 % of the clients, and it is said."""
    weights, remarks = fitting(table(a=1000, b=300))
    assert weights == {"a": 256, "b": 77}
    assert [(remark.id, remark.why) for remark in remarks] == [
        ("a", "weight 1000 is above 256: all weights of its tier are divided by 3.906")
    ]


def test_equal_ones_stay_equal():
    """Where all are too large there is no difference to be lost."""
    assert fitting(table(a=1000, b=1000))[0] == {"a": 256, "b": 256}


def test_nobody_is_divided_away():
    """What is above 0 stays above 0, told when it is more than its share; 0 stays 0: it wants no clients."""
    weights, remarks = fitting(table(a=65535, b=1, c=0))
    assert weights == {"a": 256, "b": 1, "c": 0}
    assert [remark.id for remark in remarks] == ["a", "b"]
    assert "weight 1 beside 65535 becomes 1" in remarks[1].why


def test_tiers_are_not_compared():
    """A heavy standby says nothing about the primaries: only backends of one tier share clients."""
    standby = Instance("z", "z:1", weight=1000, tier=1)
    weights, remarks = fitting([*table(a=1, b=2), standby])
    assert weights == {"a": 1, "b": 2, "z": 256}
    assert [remark.id for remark in remarks] == ["z"]


def test_of_nothing_comes_nothing():
    """An empty table has no weights."""
    assert fitting([]) == ({}, ())


registered = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=3), st.integers(0, 999_999_999) | st.integers(0, 600), min_size=1
)


@settings(deadline=None)
@given(registered)
def test_shares_are_kept(weights):
    """Whatever is registered: in range, in the same order, off by half a step at most, and never 0 from above 0."""
    found, remarks = fitting(table(**weights))
    heaviest = max(weights.values())
    assert found.keys() == weights.keys()
    assert max(found.values()) == min(heaviest, MAX_WEIGHT)
    assert bool(remarks) == (heaviest > MAX_WEIGHT)
    raised = {remark.id for remark in remarks if "becomes 1" in remark.why}
    for name, weight in weights.items():
        assert (found[name] == 0) == (weight == 0)
        exact = Fraction(weight) if heaviest <= MAX_WEIGHT else Fraction(weight * MAX_WEIGHT, heaviest)
        assert abs(found[name] - exact) <= Fraction(1, 2) or name in raised
    order = sorted(weights, key=weights.__getitem__)
    assert [found[name] for name in order] == sorted(found.values())
