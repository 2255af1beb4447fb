"""Who takes a client, and how even that makes workers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.handoff import receiver, skew


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
