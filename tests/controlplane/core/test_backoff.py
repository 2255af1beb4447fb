"""Pauses between tries: they grow, they are spread, and they never end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.backoff import Backoff, BadIndex, TokenBucket, WatchIndex, jittered


def test_backoff_doubles_to_its_cap():
    """The bound of the pause doubles from 0.25 s to 30 s and stays there, for ever."""
    backoff = Backoff()
    pauses = [backoff.fail(lambda: 1.0) for _ in range(2000)]
    assert pauses[:8] == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert set(pauses[8:]) == {30.0}
    backoff.succeed()
    assert backoff.fail(lambda: 1.0) == 0.25


@settings(deadline=None)
@given(st.integers(0, 50), st.floats(0, 1, exclude_max=True))
def test_backoff_jitter(failures, chance):
    """The pause is spread over everything from 0 to its bound."""
    backoff = Backoff(failures=failures)
    bound = backoff.bound()
    assert backoff.fail(lambda: chance) == pytest.approx(bound * chance)


@settings(deadline=None)
@given(st.integers(0, 50), st.floats(0, 1), st.floats(0, 1, exclude_max=True))
def test_least_pause(failures, least, chance):
    """Who may not come back at once waits for a share of the bound at least."""
    backoff = Backoff(least=least, failures=failures)
    bound = backoff.bound()
    pause = backoff.fail(lambda: chance)
    assert least * bound <= pause + 1e-9
    assert pause <= bound + 1e-9


def test_index_is_sent_back():
    """The index of a reply is the one to wait on."""
    index = WatchIndex()
    assert index.value == 0
    assert index.take("38")
    assert index.value == 38


def test_index_that_goes_backwards():
    """An index that goes backwards starts again from nothing, and is counted."""
    index = WatchIndex()
    index.take("38")
    assert not index.take("28")
    assert (index.value, index.resets) == (0, 1)
    assert index.take("28")


def test_index_is_never_below_one():
    """An index of 0 would make every query return at once, so 1 is sent."""
    index = WatchIndex()
    index.take("0")
    assert index.value == 1


@pytest.mark.parametrize("header", [None, "", "banana", "-1", "1.5", "٣", " 7", "9" * 21])
def test_index_that_is_none(header):
    """A reply without a number for its index is no reply of Consul's."""
    index = WatchIndex()
    index.take("7")
    with pytest.raises(BadIndex):
        index.take(header)
    assert index.value == 0


@settings(deadline=None)
@given(st.lists(st.integers(0, 100)))
def test_index_follows_or_resets(values):
    """After any reply the index to send is that reply's, or none."""
    index = WatchIndex()
    for value in values:
        grew = index.take(str(value))
        assert index.value == (max(1, value) if grew else 0)


@settings(deadline=None)
@given(st.lists(st.floats(0, 5), min_size=1, max_size=60))
def test_bucket_bounds_the_rate(gaps):
    """Never more than burst + rate x time questions are asked in any time."""
    bucket = TokenBucket(rate=10.0, burst=2)
    now, asked = 0.0, []
    for gap in gaps:
        now += gap
        now += bucket.take(now)
        asked.append(now)
    for first in range(len(asked)):
        for last in range(first, len(asked)):
            assert last - first + 1 <= 2 + 10.0 * (asked[last] - asked[first]) + 1e-6


def test_bucket_does_not_delay_the_first():
    """A question after a quiet time is asked at once."""
    bucket = TokenBucket(rate=10.0, burst=2)
    assert [bucket.take(0.0), bucket.take(0.0)] == [0.0, 0.0]
    assert bucket.take(0.0) == pytest.approx(0.1)
    assert bucket.take(60.0) == 0.0


def test_jitter_only_shortens():
    """A jittered time is at most a tenth shorter, never longer."""
    assert jittered(30.0, lambda: 0.0) == 30.0
    assert jittered(30.0, lambda: 1.0) == pytest.approx(27.0)
