"""Dividing what several want: all of it, to nobody more than it wants, to nobody less than its part."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataplane.core.fair_share import divide, part, receiver, skew

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
@example(
    total=166,  # many who are nearly content
    claims=[(293, 33), (109, 13), (106, 12), (29, 4), (262, 30), (315, 33), (383, 43)],
)
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


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        (0, [], None),  # a worker alone
        (9, [], None),
        (0, [0, 0], None),  # even: who has accepted keeps
        (3, [3, 4], None),  # others have more
        (1, [0], 0),  # few: every one counts
        (2, [1, 1], 0),  # the first of equals
        (4, [3, 2, 3], 1),  # the least loaded, not the first with less
        (15, [14], 0),
        (16, [15], None),  # from here on, a sixteenth is let be
        (16, [14], 0),
        (160, [150], None),
        (160, [149], 0),
        (1000, [0, 999], 0),  # a new worker gets every new client until it has as many
    ],
)
def test_a_client_goes_to_the_least_loaded_beyond_the_slack(
    own: int, others: list[int], expected: int | None
) -> None:
    """A worker keeps a client unless it has over a sixteenth more than the least loaded, or any more when few."""
    assert receiver(own, others) == expected


@settings(deadline=None)
@given(st.lists(st.integers(0, 7), max_size=300), st.integers(1, 8))
def test_no_worker_gets_far_ahead_wherever_the_kernel_sends_clients(
    arrivals: list[int], workers: int
) -> None:
    """Whatever the hash does, no two workers differ by more than one client and a sixteenth."""
    counts = [0] * workers
    for number in arrivals:
        here = number % workers
        others = [index for index in range(workers) if index != here]
        chosen = receiver(counts[here], [counts[index] for index in others])
        counts[here if chosen is None else others[chosen]] += 1
    assert sum(counts) == len(arrivals)
    assert max(counts) - min(counts) <= 1 + max(counts) // 16


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([], 1.0), ([0, 0], 1.0), ([5], 1.0), ([2, 2], 1.0), ([3, 1], 1.5), ([8, 0, 0, 0], 4.0)],
)
def test_skew_is_the_most_loaded_by_the_average(counts: list[int], expected: float) -> None:
    """1.0 is even, the number of workers is everything on one, and nothing at all is even."""
    assert skew(counts) == expected
