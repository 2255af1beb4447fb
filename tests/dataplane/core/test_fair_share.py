"""Dividing what several want: all of it, to nobody more than it wants, to nobody less than its part."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.fair_share import divide, part

SIZES = st.integers(0, 300)
CLAIMS = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 300)), min_size=1, max_size=8)


@given(total=SIZES, weights=st.lists(st.integers(0, 1000), min_size=1, max_size=8))
@settings(deadline=None)
def test_parts_add_up(total: int, weights: list[int]) -> None:
    """All of it is given away, each part is in proportion to its weight, and rounded by less than one."""
    parts = [part(total, weights, index) for index in range(len(weights))]
    whole = sum(weights)
    assert sum(parts) == (total if whole else 0)
    for weight, got in zip(weights, parts, strict=True):
        assert not whole or abs(got * whole - total * weight) < whole


@given(total=SIZES, claims=CLAIMS)
@settings(deadline=None)
def test_a_division_is_fair(total: int, claims: list[tuple[int, int]]) -> None:
    """Nobody gets more than it wants; nothing is left while somebody wants more; nobody lacks its weight's part."""
    weights, wanted = [weight for weight, _ in claims], [want for _, want in claims]
    given_ = divide(total, weights, wanted)
    claimed = [want if weight else 0 for weight, want in claims]
    assert all(0 <= got <= want for got, want in zip(given_, claimed, strict=True))
    assert sum(given_) == min(total, sum(claimed))
    whole = sum(weight for weight, want in claims if want)
    for got, want, weight in zip(given_, claimed, weights, strict=True):
        assert got == want or got * whole > total * weight - whole
